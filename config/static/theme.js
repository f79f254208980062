/* Runs before the first paint: the chosen theme, so that nothing flashes. */
(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("rondo:theme");
  } catch {
    /* Storage is closed to us: follow the system. */
  }
  if (choice === "light" || choice === "dark") {
    document.documentElement.dataset.theme = choice;
  }
  document.documentElement.classList.add("js");
})();
