/* Keys and the small dialogs: what a key means is asked of the kind first, then of the desk. */
(() => {
  "use strict";
  const { desk, keymap, store } = window.rondo;
  const $ = (selector, root = document) => root.querySelector(selector);

  /* Single keys can be turned off, for screen readers and voice control; hints, for more room. */
  const keysOn = $("[data-keys-on]");
  keysOn.checked = store.read("rondo:keys", true);
  keysOn.addEventListener("change", () => store.write("rondo:keys", keysOn.checked));
  const hintsOn = $("[data-hints-on]");
  const hintsApply = () => document.body.classList.toggle("no-hints", !hintsOn.checked);
  hintsOn.checked = store.read("rondo:hints", true);
  hintsOn.addEventListener("change", () => {
    store.write("rondo:hints", hintsOn.checked);
    hintsApply();
  });
  hintsApply();

  // By the keys that the page comes with; see keymap.js.
  const common = {
    u: desk.acts.undo,
    s: desk.acts.skip,
    g: desk.acts.guidelines,
    q: desk.acts.question,
    r: desk.toRationale,
    "!": desk.acts.report,
    "?": desk.acts.keys,
  };

  const writing = (target) => target.closest("input, textarea, select, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || $("dialog[open]")) return;
    const { target } = event;
    const { work } = desk;
    const send = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (send && work) {
      event.preventDefault();
      desk.acts.submit();
      return;
    }
    if (writing(target)) {
      if (event.key === "Escape" && work && target.type !== "search") {
        event.preventDefault();
        target.blur();
        (work.rest ?? work.focus).call(work);
      }
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const key = event.key.length === 1 ? keymap.meaning(event.key.toLowerCase()) : event.key;
    if (!work) {
      if (key === "u" && keysOn.checked) desk.acts.undo();
      return;
    }
    // An arrow scrolls what is read, and moves among answers elsewhere.
    if (key.startsWith("Arrow") && (event.shiftKey || target.closest("[data-messages], .prose[tabindex], .prose [tabindex]"))) return;
    if (key === "Enter") {
      if (target.closest("button, a, summary, label")) return;
      event.preventDefault();
      desk.acts.submit();
      return;
    }
    if (event.altKey && !key.startsWith("Arrow")) return;
    if (key === " " || key === "Tab" || (!keysOn.checked && key.length === 1)) return;
    if (work.key(key, event)) event.preventDefault();
    else if (Object.hasOwn(common, key)) {
      event.preventDefault();
      common[key]();
    }
  });

  /* What a button by a key's name does is what the key does. */
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-key]");
    if (button) desk.work?.key(button.dataset.key, event);
  });

  /* The number of a reason skips at once; the last one is "another", which is put into words. */
  const skipDialog = $("#skip-dialog");
  const skipForm = $("[data-skip-form]");
  const skipSend = () => skipForm.requestSubmit($('[value="skip"]', skipForm));
  const more = $("[data-skip-more]");
  skipForm.addEventListener("submit", (event) => {
    if (event.submitter?.value !== "skip") return;
    const words = more.value.trim();
    const reason = new FormData(skipForm).get("reason");
    desk.skip(words ? `${reason}: ${words}` : reason);
    skipForm.reset();
  });
  skipDialog.addEventListener("keydown", (event) => {
    const radios = [...skipForm.querySelectorAll('[name="reason"]')];
    const radio = radios[Number(event.key) - 1];
    if (radio && event.target !== more) {
      event.preventDefault();
      radio.checked = true;
      if (radio === radios.at(-1)) more.focus();
      else skipSend();
    }
    if (event.key === "Enter" && (event.target.name === "reason" || event.target === more)) {
      event.preventDefault();
      skipSend();
    }
  });

  /* A few words to the reviewers: sent by button and by Ctrl Enter, and never empty. */
  function wordsDialog(name, send) {
    const form = $(`[data-${name}-form]`);
    const area = $(`[data-${name}]`);
    form.addEventListener("submit", (event) => {
      if (!event.submitter?.value) return;
      const text = area.value.trim();
      if (text) {
        send(text);
        form.reset();
        return;
      }
      event.preventDefault();
      area.focus();
    });
    $(`#${name}-dialog`).addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      form.requestSubmit($('[type="submit"]', form));
    });
  }
  wordsDialog("question", desk.ask);
  wordsDialog("report", desk.report);

  keymap.sheetDraw();
})();
