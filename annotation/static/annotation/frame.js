/* What stands around the work: which view is shown, the reason in words, the keys of a kind, the line
   at the foot. It knows the page and no task. */
(() => {
  "use strict";
  const { keymap } = window.rondo;
  const $ = (selector) => document.querySelector(selector);

  class Frame {
    constructor(page) {
      this.page = page;
      this.area = $("[data-rationale]");
      this.asked = "optional";
    }

    /* ---------------------------------------------------------- views */

    get view() {
      return this.page.dataset.view;
    }

    show(view) {
      this.page.dataset.view = view;
      for (const one of [$("[data-lease]"), $("[data-ask]")]) one.hidden = view !== "task";
    }

    /* An answer that says "later" comes from a server that is there: nobody is sent to look at their cable. */
    showWaiting({ hasWork, answered }) {
      $("[data-waiting-title]").textContent = answered ? gettext("The server is not ready") : gettext("You are offline");
      $("[data-waiting-words]").textContent = hasWork
        ? gettext("Your work is kept on this device and will be sent by itself as soon as the server answers.")
        : gettext("The page tries again by itself.");
      this.show("waiting");
    }

    showError(refusal) {
      const out = refusal.status === 401;
      $("[data-error-title]").textContent = out ? gettext("You are signed out") : gettext("Something went wrong");
      $("[data-error-words]").textContent = out
        ? gettext("Sign in again to go on. What you did is kept on this device and will be sent then.")
        : refusal.message;
      $("[data-error-sign-in]").hidden = !out;
      this.show("error");
    }

    /* ---------------------------------------------------------- why */

    rationaleTake(asked, text) {
      this.asked = asked;
      document.body.dataset.reasonAsked = asked; // annotate.css hides its key where none is asked
      $("[data-why]").hidden = asked === "none";
      $("[data-why-asked]").textContent = asked === "required" ? gettext("required") : gettext("optional");
      this.area.required = asked === "required";
      this.area.value = typeof text === "string" ? text : "";
    }

    /* What a draft and a submission say of the reason: nothing where none is asked. */
    get rationale() {
      return this.asked === "none" ? {} : { rationale: this.area.value };
    }

    get rationaleLacks() {
      return this.asked === "required" && !this.area.value.trim();
    }

    rationaleFocus() {
      if (this.asked !== "none") this.area.focus();
    }

    /* ---------------------------------------------------------- keys, and the foot */

    /* The keys of a kind: a line in the bar, and the sheet. */
    keysTake(kind) {
      const template = document.getElementById(`keys-${kind}`).content.cloneNode(true);
      $("[data-bar-keys]").replaceChildren(template.querySelector("[data-short]"));
      $("[data-kind-keys]").replaceChildren(...template.querySelectorAll("dl > div"));
      keymap.sheetDraw();
    }

    /* A contradiction to look at, or what was missing when somebody wanted to send. */
    hint(words) {
      $("[data-hint]").hidden = !words;
      if ($("[data-hint-words]").textContent !== words) $("[data-hint-words]").textContent = words;
    }

    foot({ count, complete, canUndo }) {
      $("[data-count]").textContent = count;
      $('[data-act="submit"]').setAttribute("aria-disabled", String(!complete));
      $('[data-act="undo"]').disabled = !canUndo;
    }
  }

  window.rondo = { ...window.rondo, Frame };
})();
