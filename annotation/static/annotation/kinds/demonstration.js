/* Demonstration: the person writes the ideal answer, from nothing or on from a model's draft, and
   where the project asks for a talk, what is said next and the answer to that. */
(() => {
  "use strict";
  const { Editor, fill, lengthWords, say } = window.rondo;

  class Demonstration {
    constructor(desk) {
      this.desk = desk;
      const start = desk.form.start ?? "either";
      this.drafts = start === "nothing" ? [] : desk.task.candidates;
      this.mustStart = start === "draft" && this.drafts.length > 0;
      this.past = [];
      this.startedFrom = null;
      this.begun = false;
      desk.stage.classList.add("writing");
      this.starts = this.startsBuild();
      this.editor = new Editor({
        label: gettext("Your answer"),
        placeholder: gettext("Write the answer you would want to get. Markdown works."),
        onInput: () => {
          this.begun = true;
          desk.changed();
        },
        previewUrl: desk.previewUrl,
        typeset: desk.typeset,
      });
      this.editor.root.tabIndex = -1;
      this.maxTurns = desk.form.turns ?? 1;
      this.turns = []; // [{root, user, editor}]: those after the first answer
      this.more = document.createElement("button");
      this.more.type = "button";
      this.more.className = "button";
      this.more.textContent = gettext("Go on with another turn");
      this.more.addEventListener("click", () => this.turnAdd({ focus: true }));
      desk.stage.append(this.starts, this.editor.root, this.more);
    }

    /* One more thing said, and the answer to it. */
    turnAdd({ user = "", text = "", focus = false } = {}) {
      const root = document.createElement("section");
      root.className = "turn";
      const message = document.createElement("textarea");
      message.className = "input";
      message.rows = 2;
      message.dir = "auto";
      message.maxLength = 50_000;
      message.value = user;
      const number = this.turns.length + 2;
      message.setAttribute("aria-label", fill(gettext("What the person says next, turn %(n)s"), { n: number }));
      message.placeholder = gettext("What the person says next");
      message.addEventListener("input", this.desk.changed);
      const editor = new Editor({
        label: fill(gettext("Your answer, turn %(n)s"), { n: number }),
        onInput: this.desk.changed,
        previewUrl: this.desk.previewUrl,
        typeset: this.desk.typeset,
      });
      editor.text = text;
      const away = document.createElement("button");
      away.type = "button";
      away.className = "button quiet small";
      away.textContent = gettext("Take this turn out");
      away.addEventListener("click", () => {
        this.past.push(this.draft());
        this.turns = this.turns.filter((turn) => turn.root !== root);
        root.remove();
        this.draw();
        this.desk.changed();
      });
      root.append(message, editor.root, away);
      this.turns.push({ root, message, editor });
      this.more.before(root);
      this.draw();
      if (!focus) return;
      message.focus();
      this.desk.changed();
    }

    /* The ways to begin: nothing, and each draft, which can be read before it is taken. */
    startsBuild() {
      const box = document.getElementById("starts-template").content.cloneNode(true).firstElementChild;
      box.hidden = !this.drafts.length;
      const list = box.querySelector("[data-starts]");
      const starts = [...(this.mustStart ? [] : [null]), ...this.drafts];
      for (const [index, draft] of starts.entries()) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "start";
        button.dataset.uid = draft?.uid ?? "";
        const title = document.createElement("b");
        title.textContent = draft ? fill(gettext("Draft %(letter)s"), { letter: draft.letter }) : gettext("An empty page");
        const note = document.createElement("span");
        note.textContent = draft ? lengthWords(draft) : gettext("your words alone");
        const excerpt = document.createElement("span");
        excerpt.className = "start-excerpt";
        excerpt.textContent = draft ? draft.text : "";
        const key = document.createElement("kbd");
        key.textContent = index + 1;
        key.setAttribute("aria-hidden", "true");
        button.append(key, title, note, excerpt);
        button.addEventListener("click", () => this.start(draft));
        list.append(button);
      }
      return box;
    }

    /* Begin from a draft, or from nothing; what stood there comes back with undo. */
    start(draft) {
      this.past.push(this.draft());
      this.startedFrom = draft?.uid ?? null;
      this.begun = true;
      this.editor.text = draft?.text ?? "";
      this.draw();
      this.editor.focus();
      say(draft ? fill(gettext("Started from draft %(letter)s."), { letter: draft.letter }) : gettext("Started from an empty page."));
      this.desk.changed();
    }

    take(draft) {
      const known = this.drafts.find((one) => one.uid === draft?.started_from);
      this.startedFrom = known?.uid ?? null;
      this.begun = Boolean(draft?.text);
      this.editor.text = typeof draft?.text === "string" ? draft.text : "";
      for (const turn of this.turns) turn.root.remove();
      this.turns = [];
      for (const turn of (Array.isArray(draft?.turns) ? draft.turns : []).slice(0, this.maxTurns - 1)) {
        this.turnAdd({ user: String(turn?.user ?? ""), text: String(turn?.text ?? "") });
      }
      this.draw();
    }

    draft() {
      const turns = this.turns.map(({ message, editor }) => ({ user: message.value, text: editor.text }));
      return { text: this.editor.text, started_from: this.startedFrom, turns };
    }

    judgement() {
      return this.draft();
    }

    missing() {
      if (this.mustStart && !this.startedFrom)
        return { words: gettext("Not sent: choose the draft to write on from."), point: () => this.starts.querySelector("button").focus() };
      if (!this.editor.text.trim()) return { words: gettext("Not sent: the answer is empty."), point: () => this.editor.focus() };
      const empty = this.turns.find(({ message, editor }) => !message.value.trim() || !editor.text.trim());
      if (!empty) return null;
      return {
        words: gettext("Not sent: a turn is not finished. Fill it, or take it out."),
        point: () => (empty.message.value.trim() ? empty.editor.focus() : empty.message.focus()),
      };
    }

    count() {
      return this.editor.root.querySelector("[data-length]").textContent;
    }

    hint() {
      const from = this.drafts.find((one) => one.uid === this.startedFrom);
      return from && this.editor.text === from.text ? gettext("It is the draft, unchanged so far.") : "";
    }

    greeting() {
      return this.drafts.length
        ? fill(ngettext("Write the answer. There is %(n)s draft to start from.", "Write the answer. There are %(n)s drafts to start from.", this.drafts.length), { n: this.drafts.length })
        : gettext("Write the answer.");
    }

    focus() {
      if (this.begun || !this.drafts.length) this.editor.focus();
      else this.starts.querySelector("button").focus({ preventScroll: true });
    }

    rest() {
      this.editor.root.focus({ preventScroll: true });
    }

    get canUndo() {
      return this.past.length > 0;
    }

    undo() {
      this.take(this.past.pop());
      say(gettext("Undone."));
      this.desk.changed();
    }

    draw() {
      this.more.hidden = this.turns.length + 1 >= this.maxTurns;
      for (const button of this.starts.querySelectorAll(".start")) {
        button.setAttribute("aria-pressed", String(this.begun && button.dataset.uid === (this.startedFrom ?? "")));
      }
      this.starts.classList.toggle("begun", this.begun);
    }

    key(key) {
      const start = this.starts.querySelectorAll(".start")[Number(key) - 1];
      if (/^[1-9]$/.test(key) && start && !this.starts.hidden) {
        start.click();
        return true;
      }
      if (key === "e") this.editor.focus();
      else if (key === "p") this.editor.paneNext();
      else return false;
      return true;
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, demonstration: Demonstration };
})();
