// The page of proposals by keyboard: a button's own key presses it, once.

const buttons = document.querySelectorAll("button[data-decide-key]");

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  for (const button of buttons) {
    if (!button.disabled && event.key.toLowerCase() === button.dataset.decideKey) {
      event.preventDefault();
      button.click();
      return;
    }
  }
});

// Sent once: a second press would decide the next proposal unseen.
document.querySelector("form[data-decide]")?.addEventListener("submit", (event) => {
  const form = event.currentTarget;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
