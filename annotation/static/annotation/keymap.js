/* The person's own keys. A kind knows an action by the key that the page comes with; what was pressed
   is turned into that one, and every key cap on the page shows the person's. */
(() => {
  "use strict";
  const { fill, put } = window.rondo;
  const state = JSON.parse(document.getElementById("desk-state")?.textContent ?? "{}");
  const defaults = state.keys_default ?? {};
  let keys = { ...(state.keys ?? defaults) };

  const capOf = (key) => (key.length === 1 ? key.toUpperCase() : key);
  const cap = (action) => capOf(keys[action] ?? "");

  /* The key that the page comes with for what was pressed; "" where the person gave it away. */
  function meaning(pressed) {
    const action = Object.keys(keys).find((name) => keys[name] === pressed);
    if (action) return defaults[action];
    return Object.values(defaults).includes(pressed) ? "" : pressed;
  }

  /* The caps and titles under `root`, as the person has them. */
  function capsDraw(root = document) {
    for (const one of root.querySelectorAll("[data-action]")) if (keys[one.dataset.action]) one.textContent = cap(one.dataset.action);
    for (const one of root.querySelectorAll("[data-titled]")) {
      one.dataset.title ??= one.title;
      one.title = `${one.dataset.title} (${cap(one.dataset.titled)})`;
    }
  }

  /* ------------------------------------------------------------ the sheet, where keys are changed */

  const sheet = document.getElementById("keys-dialog");
  const said = sheet?.querySelector("[data-keys-said]");
  const back = sheet?.querySelector("[data-keys-back]");
  let waiting = null; // the cap whose key is about to be pressed

  /* In the sheet every cap of an action is a button. */
  function sheetDraw() {
    for (const one of sheet.querySelectorAll("kbd[data-action]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "key-cap";
      button.dataset.action = one.dataset.action;
      one.replaceWith(button);
    }
    for (const button of sheet.querySelectorAll(".key-cap")) {
      button.classList.toggle("own", keys[button.dataset.action] !== defaults[button.dataset.action]);
      button.setAttribute("aria-label", fill(gettext("Change the key %(key)s"), { key: cap(button.dataset.action) }));
    }
    back.hidden = Object.keys(defaults).every((action) => keys[action] === defaults[action]);
    capsDraw();
  }

  function waitEnd(words) {
    waiting?.classList.remove("waiting");
    waiting = null;
    if (words) said.textContent = words;
    sheetDraw();
  }

  async function change(wanted, words) {
    said.dataset.kind = "";
    try {
      const changed = Object.fromEntries(Object.entries(wanted).filter(([action, key]) => key !== defaults[action]));
      keys = (await put(state.urls.keys, { keys: changed })).keys;
      waitEnd(words);
    } catch (refusal) {
      said.dataset.kind = "bad";
      waitEnd(refusal.message);
    }
  }

  sheet?.addEventListener("click", (event) => {
    const button = event.target.closest(".key-cap");
    if (!button) return;
    waitEnd();
    waiting = button;
    button.classList.add("waiting");
    button.textContent = "…";
    said.dataset.kind = "";
    said.textContent = gettext("Press the new key, or Escape to leave it as it is.");
  });
  sheet?.addEventListener("keydown", (event) => {
    if (!waiting || ["Shift", "Control", "Alt", "Meta", "Tab"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const { action } = waiting.dataset;
    if (event.key === "Escape") waitEnd(gettext("It stays as it is."));
    else change({ ...keys, [action]: event.key.toLowerCase() }, fill(gettext("Kept: %(key)s."), { key: capOf(event.key) }));
  });
  // Escape would close the sheet, and a click elsewhere leaves the key as it is.
  sheet?.addEventListener("cancel", (event) => waiting && event.preventDefault());
  sheet?.addEventListener("focusout", (event) => event.target === waiting && waitEnd());
  back?.addEventListener("click", () => change({}, gettext("All keys are as the page comes.")));

  window.rondo = { ...window.rondo, keymap: { cap, capsDraw, meaning, sheetDraw } };
})();
