/* Edit: the best answer is chosen and made better; what changed is seen as one writes. */
(() => {
  "use strict";
  const { Answers, Editor, changesDraw, difference, fill, say, wordsCut } = window.rondo;
  const $ = (selector, root) => root.querySelector(selector);

  class Edit {
    constructor(desk) {
      this.desk = desk;
      this.candidates = desk.task.candidates;
      this.past = [];
      this.original = null;
      desk.stage.classList.add("writing");
      const row = document.createElement("div");
      row.className = "edit-answers";
      this.answers = new Answers({ candidates: this.candidates, place: row, describe: (uid) => this.whereabouts(uid) });
      for (const [index, one] of this.candidates.entries()) row.append(this.cardBuild(one, index));
      this.editor = new Editor({
        label: gettext("The answer, made better"),
        onInput: () => desk.changed(),
        previewUrl: desk.previewUrl,
        typeset: desk.typeset,
        views: [{ name: "changes", label: gettext("Changes"), draw: (place, text) => changesDraw(place, this.original ? this.textOf(this.original) : text, text) }],
      });
      this.editor.root.tabIndex = -1;
      desk.stage.append(row, this.editor.root);
    }

    cardBuild(candidate, index) {
      const card = this.answers.build(candidate);
      const button = document.createElement("button");
      button.type = "button";
      button.className = "mark-button choose";
      button.dataset.original = candidate.uid;
      button.append(gettext("Edit this one"));
      const key = document.createElement("kbd");
      key.textContent = index + 1;
      key.setAttribute("aria-hidden", "true");
      button.append(" ", key);
      button.setAttribute("aria-label", fill(gettext("Edit answer %(letter)s"), { letter: candidate.letter }));
      button.addEventListener("click", () => this.choose(candidate.uid));
      $(".answer-tools", card).append(button);
      // Once one is chosen the answers shrink, and are scrolled by keys too.
      const text = $(".answer-text", card);
      text.tabIndex = 0;
      text.dataset.scrolls = "yes";
      text.setAttribute("role", "region");
      text.setAttribute("aria-label", fill(gettext("Text of answer %(letter)s"), { letter: candidate.letter }));
      return card;
    }

    choose(uid) {
      if (uid === this.original) return this.editor.focus();
      this.past.push([this.original, this.editor.text]);
      this.original = uid;
      this.editor.text = this.textOf(uid);
      this.draw();
      this.editor.focus();
      say(fill(gettext("Editing answer %(letter)s."), { letter: this.answers.letter(uid) }));
      return this.desk.changed();
    }

    textOf(uid) {
      return this.candidates.find((one) => one.uid === uid).text;
    }

    take(draft) {
      const known = this.candidates.find((one) => one.uid === draft?.original);
      this.original = known?.uid ?? (this.candidates.length === 1 ? this.candidates[0].uid : null);
      this.editor.text = known && typeof draft.text === "string" ? draft.text : this.original ? this.textOf(this.original) : "";
      this.answers.mark();
      this.draw();
      this.answers.foldApply();
    }

    draft() {
      return { original: this.original, text: this.editor.text };
    }

    judgement() {
      return this.draft();
    }

    missing() {
      if (!this.original)
        return { words: gettext("Not sent: choose the answer to edit."), point: () => this.answers.want(this.answers.uids) };
      if (!this.editor.text.trim()) return { words: gettext("Not sent: the answer is empty."), point: () => this.editor.focus() };
      if (this.editor.text.trim() === this.textOf(this.original).trim())
        return { words: gettext("Not sent: nothing is changed yet."), point: () => this.editor.focus() };
      return null;
    }

    runs() {
      return difference(wordsCut(this.textOf(this.original)), wordsCut(this.editor.text));
    }

    count() {
      if (!this.original) return gettext("Not chosen yet");
      let [out, put] = [0, 0];
      for (const [mark, items] of this.runs()) {
        const words = items.filter((one) => one.trim()).length;
        if (mark === "-") out += words;
        if (mark === "+") put += words;
      }
      return fill(gettext("−%(out)s +%(put)s words"), { out, put });
    }

    hint() {
      return "";
    }

    greeting() {
      const words = ngettext("%(n)s answer to improve.", "%(n)s answers: choose the best and improve it.", this.candidates.length);
      return fill(words, { n: this.candidates.length });
    }

    whereabouts(uid) {
      const letter = this.answers.letter(uid);
      return uid === this.original ? fill(gettext("Answer %(letter)s, being edited"), { letter }) : fill(gettext("Answer %(letter)s"), { letter });
    }

    focus() {
      if (this.original) this.editor.focus();
      else this.answers.go(this.answers.focused, { speak: false });
    }

    rest() {
      this.answers.go(this.answers.focused, { speak: false });
    }

    get canUndo() {
      return this.past.length > 0;
    }

    undo() {
      const [original, text] = this.past.pop();
      this.original = original;
      this.editor.text = text;
      this.draw();
      say(gettext("Undone."));
      this.desk.changed();
    }

    draw() {
      this.editor.root.hidden = !this.original;
      this.desk.stage.classList.toggle("chosen", Boolean(this.original));
      for (const { uid } of this.candidates) {
        const card = this.answers.card(uid);
        card.classList.toggle("better", uid === this.original);
        card.setAttribute("aria-label", this.whereabouts(uid));
        $("[data-original]", card).setAttribute("aria-pressed", String(uid === this.original));
      }
    }

    key(key) {
      if (/^[1-9]$/.test(key) && this.candidates[Number(key) - 1]) {
        this.choose(this.candidates[Number(key) - 1].uid);
        return true;
      }
      if (key.startsWith("Arrow")) {
        this.answers.toward(key);
        return true;
      }
      if (key === "e" && this.original) this.editor.focus();
      else if (key === "p" && this.original) this.editor.paneNext();
      else return this.answers.key(key);
      return true;
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, edit: Edit };
})();
