/* None is good: one of the ranked answers written anew, under the board. */
(() => {
  "use strict";
  const { Editor, changesDraw, fill } = window.rondo;

  class Rewrite {
    /* `letterOf(uid)`; `onChange()` hears of every change, `onClose()` when it is taken out. */
    constructor({ desk, candidate, letter, text, onChange, onClose }) {
      this.candidate = candidate;
      this.root = document.getElementById("rewrite-template").content.cloneNode(true).firstElementChild;
      this.root.querySelector("[data-rewrite-title]").textContent = fill(gettext("Answer %(letter)s, written anew"), { letter });
      this.editor = new Editor({
        label: fill(gettext("Answer %(letter)s, written anew"), { letter }),
        onInput: onChange,
        previewUrl: desk.previewUrl,
        typeset: desk.typeset,
        views: [{ name: "changes", label: gettext("Changes"), draw: (place, now) => changesDraw(place, candidate.text, now) }],
      });
      this.editor.text = text ?? candidate.text;
      this.root.append(this.editor.root);
      this.root.querySelector("[data-rewrite-out]").addEventListener("click", onClose);
    }

    get isChanged() {
      const text = this.editor.text.trim();
      return text !== "" && text !== this.candidate.text.trim();
    }

    draft() {
      return { original: this.candidate.uid, text: this.editor.text };
    }
  }

  window.rondo = { ...window.rondo, Rewrite };
})();
