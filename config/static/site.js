/* What every page can do: theme, menus, dialogs, confirmation, copying, times in words, sliding. */
(() => {
  "use strict";
  const root = document.documentElement;
  const say = document.body.dataset; // the few words that are needed here, in the page's language

  const themeNow = () =>
    root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  function themeToggle() {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = themeNow() === "dark" ? "light" : "dark";
    // Back at what the system says: follow it again.
    if (next === system) delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      if (next === system) localStorage.removeItem("rondo:theme");
      else localStorage.setItem("rondo:theme", next);
    } catch {
      /* The choice lasts for this page only. */
    }
    document.dispatchEvent(new CustomEvent("rondo:theme"));
  }

  /* Asks with a dialog of ours, because the browser's own cannot be read in the site's language or look. */
  function confirmAsk(question, word) {
    const dialog = document.createElement("dialog");
    dialog.className = "dialog";
    const text = document.createElement("p");
    text.textContent = question;
    const actions = document.createElement("div");
    actions.className = "cluster end";
    for (const [label, value, kind] of [[say.wordKeep, "", ""], [word, "yes", "danger"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `button ${kind}`;
      button.textContent = label;
      button.addEventListener("click", () => dialog.close(value));
      actions.append(button);
    }
    dialog.append(text, actions);
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      });
    });
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset?.confirm || form.dataset.confirmed) return;
    event.preventDefault();
    const button = event.submitter;
    const word = form.dataset.confirmWord || button?.textContent.trim() || say.wordGo;
    if (!(await confirmAsk(form.dataset.confirm, word))) return;
    form.dataset.confirmed = "yes";
    form.requestSubmit(button ?? undefined);
  });

  document.addEventListener("click", async (event) => {
    const target = event.target;
    if (!(target instanceof Element)) return;
    if (target.closest("[data-theme-toggle]")) themeToggle();
    const opener = target.closest("[data-open]");
    if (opener) document.querySelector(opener.dataset.open)?.showModal();
    if (target.closest("[data-close]")) target.closest("dialog")?.close();
    if (target.matches("dialog.drawer, dialog.dialog") && target.open) {
      // A click beside the box falls on the dialog itself.
      const box = target.getBoundingClientRect();
      const inside =
        event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
      if (!inside) target.close();
    }
    const copier = target.closest("[data-copy]");
    if (copier) {
      const source = document.querySelector(copier.dataset.copy);
      const text = source.value ?? source.textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        source.select?.();
        document.execCommand("copy");
      }
      const label = copier.textContent;
      copier.textContent = say.wordCopied;
      setTimeout(() => (copier.textContent = label), 1600);
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  /* <time datetime data-ago>: "4 min ago", with the full time on hover. */
  const words = new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "auto", style: "short" });
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60]];
  function agoWrite() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const when = new Date(time.dateTime);
      const seconds = (when - Date.now()) / 1000;
      if (Number.isNaN(seconds)) continue; // no time is known: the text stands as it is
      const [unit, size] = steps.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
      time.textContent = Math.abs(seconds) < 45 ? words.format(0, "second") : words.format(Math.round(seconds / size), unit);
      if (!time.title) time.title = when.toLocaleString(root.lang || "en");
    }
  }
  /* What slides sideways says so: [data-more] is faded at the edges behind which there is more. */
  const sliding = ".table-wrap, [data-slides]";
  function moreMark(box) {
    const room = box.scrollWidth - box.clientWidth;
    const at = Math.abs(box.scrollLeft);
    box.dataset.more = [at > 2 && "start", room - at > 2 && "end"].filter(Boolean).join(" ");
  }
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => moreMark(entry.target)));
  function slidersWatch() {
    for (const box of document.querySelectorAll(sliding)) {
      if (box.dataset.more === undefined) {
        box.addEventListener("scroll", () => moreMark(box), { passive: true });
        resized.observe(box);
        const here = box.matches("nav") && box.querySelector("[aria-current]");
        if (here) box.scrollLeft = here.offsetLeft - (box.clientWidth - here.offsetWidth) / 2;
      }
      moreMark(box);
    }
  }
  slidersWatch();
  document.addEventListener("htmx:afterSwap", slidersWatch);

  agoWrite();
  setInterval(agoWrite, 30_000);
  document.addEventListener("htmx:afterSwap", agoWrite);
})();
