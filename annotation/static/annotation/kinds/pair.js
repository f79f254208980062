/* A pair: which of two answers is better and by how much, and whether each is safe. */
(() => {
  "use strict";
  const { Answers, DegreeScale, degreePlace, degreeSentence, degreeStep, fill, ratingContradiction, say } = window.rondo;
  const $ = (selector, root) => root.querySelector(selector);
  const QUICK_S = 4;

  class Pair {
    constructor(desk) {
      this.desk = desk;
      this.candidates = desk.task.candidates.slice(0, 2);
      this.uids = this.candidates.map((one) => one.uid);
      this.letters = this.candidates.map((one) => one.letter);
      this.asksSafety = Boolean(desk.form.safety_labels);
      this.past = [];
      this.state = { place: null, unsafe: [] };
      const row = document.createElement("div");
      row.className = "pair-answers";
      this.answers = new Answers({ candidates: this.candidates, place: row, describe: (uid) => this.whereabouts(uid) });
      for (const one of this.candidates) row.append(this.cardBuild(one));
      this.scale = new DegreeScale({ letters: this.letters, tie: desk.form.ties !== false, onPick: (place) => this.pick(place) });
      this.scale.root.classList.add("at-the-foot");
      desk.stage.append(row, this.scale.root);
    }

    cardBuild(candidate) {
      const card = this.answers.build(candidate);
      if (this.asksSafety) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "mark-button";
        button.dataset.unsafe = candidate.uid;
        button.append(gettext("Not safe"), " ");
        const key = document.createElement("kbd");
        key.textContent = candidate.letter;
        key.setAttribute("aria-hidden", "true");
        button.append(key);
        button.setAttribute("aria-label", fill(gettext("%(letter)s is not safe"), { letter: candidate.letter }));
        button.addEventListener("click", () => this.unsafeToggle(candidate.uid));
        $(".answer-tools", card).append(button);
      }
      return card;
    }

    take(draft) {
      const side = this.uids.indexOf(draft?.better);
      const degree = Number.isInteger(draft?.degree) && draft.degree >= 0 && draft.degree <= 4 ? draft.degree : null;
      const known = degree === 0 || (degree !== null && side >= 0);
      this.state = {
        place: known ? degreePlace({ side: degree === 0 ? null : side, degree }) : null,
        unsafe: this.uids.filter((uid) => draft?.unsafe?.includes?.(uid)),
      };
      this.answers.mark();
      this.draw();
      this.answers.foldApply();
    }

    judgement() {
      const { side, degree } = degreeStep(this.state.place);
      return { better: side === null ? null : this.uids[side], degree, unsafe: this.state.unsafe };
    }

    draft() {
      return this.state.place ? this.judgement() : { better: null, degree: null, unsafe: this.state.unsafe };
    }

    missing() {
      if (this.state.place) return null;
      return {
        words: gettext("Not sent: say which is better, or that it is a tie."),
        point: () => this.scale.root.classList.add("wanted"),
      };
    }

    count() {
      return this.state.place ? gettext("Chosen") : gettext("Not chosen yet");
    }

    hint() {
      const { place, unsafe } = this.state;
      if (!place || place === 5) return "";
      const { side, degree } = degreeStep(place);
      if (unsafe.includes(this.uids[side]) && !unsafe.includes(this.uids[1 - side]))
        return fill(gettext("You prefer %(a)s, which you marked as not safe, to %(b)s, which is safe."), { a: this.letters[side], b: this.letters[1 - side] });
      const above = [[this.uids[side], this.uids[1 - side]]];
      const odd = ratingContradiction(above, this.desk.task.rated, (uid) => this.answers.letter(uid));
      if (odd) return odd;
      const seconds = (Date.now() - this.shownAt) / 1000;
      if (degree === 4 && this.quick === undefined) this.quick = seconds < QUICK_S;
      return this.quick && degree === 4 ? gettext("Significantly better, in a few seconds: have you read both?") : "";
    }

    greeting() {
      return `${gettext("Two answers to compare.")} ${this.whereabouts(this.answers.focused)}.`;
    }

    whereabouts(uid) {
      const letter = this.answers.letter(uid);
      return this.state.unsafe.includes(uid) ? fill(gettext("Answer %(letter)s, not safe"), { letter }) : fill(gettext("Answer %(letter)s"), { letter });
    }

    focus() {
      this.shownAt ??= Date.now();
      this.answers.go(this.answers.focused, { speak: false });
    }

    get canUndo() {
      return this.past.length > 0;
    }

    undo() {
      this.state = this.past.pop();
      this.draw();
      say(gettext("Undone."));
      this.desk.changed();
    }

    set(state) {
      this.past.push(this.state);
      this.state = { ...this.state, ...state };
      this.draw();
      this.desk.changed();
    }

    pick(place) {
      if (place === this.state.place) return;
      this.set({ place });
      say(`${degreeSentence(degreeStep(place), this.letters)}.`);
    }

    unsafeToggle(uid) {
      const { unsafe } = this.state;
      this.set({ unsafe: this.uids.filter((one) => (one === uid) !== unsafe.includes(one)) });
      say(`${this.whereabouts(uid)}.`);
    }

    draw() {
      const { place, unsafe } = this.state;
      this.scale.draw(place);
      this.scale.root.classList.remove("wanted");
      const side = place ? degreeStep(place).side : null;
      for (const [index, uid] of this.uids.entries()) {
        const card = this.answers.card(uid);
        card.classList.toggle("better", side === index);
        card.classList.toggle("unsafe", unsafe.includes(uid));
        card.setAttribute("aria-label", this.whereabouts(uid));
        card.querySelector("[data-unsafe]")?.setAttribute("aria-pressed", String(unsafe.includes(uid)));
      }
    }

    key(key) {
      if (key === "ArrowLeft" || key === "ArrowRight") {
        this.answers.go(this.uids[key === "ArrowLeft" ? 0 : 1]);
        return true;
      }
      if (/^[1-9]$/.test(key)) {
        if (key === "5" && !this.scale.tie) say(gettext("No ties here: choose negligibly better if you are unsure."));
        else this.pick(Number(key));
        return true;
      }
      const marked = this.letters.findIndex((letter) => letter.toLowerCase() === key);
      if (this.asksSafety && marked >= 0) {
        this.unsafeToggle(this.uids[marked]);
        return true;
      }
      return this.answers.key(key);
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, pair: Pair };
})();
