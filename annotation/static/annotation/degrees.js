/* How much better one answer is than the other: nine steps in a row, from the first to the second,
   one key each. Used by pairs and by dialogues. */
(() => {
  "use strict";
  const { fill } = window.rondo;

  /* Place 1 … 9 → which side (0, 1, or null for a tie) and the degree, 4 … 1, 0, 1 … 4. */
  const stepOf = (place) => ({ side: place < 5 ? 0 : place > 5 ? 1 : null, degree: Math.abs(5 - place) });
  const placeOf = ({ side, degree }) => (side === null || degree === 0 ? 5 : side === 0 ? 5 - degree : 5 + degree);

  const shortWords = () => [gettext("tie"), gettext("barely, or unsure"), gettext("slightly"), gettext("better"), gettext("much better")];

  function sentence({ side, degree }, letters) {
    if (side === null) return gettext("A tie: neither is better");
    const better = letters[side];
    const worse = letters[1 - side];
    return fill(
      [
        "",
        gettext("%(better)s is negligibly better than %(worse)s, or you are unsure"),
        gettext("%(better)s is slightly better than %(worse)s"),
        gettext("%(better)s is better than %(worse)s"),
        gettext("%(better)s is significantly better than %(worse)s"),
      ][degree],
      { better, worse },
    );
  }

  /* The scale as an element. `tie`: whether the middle may be chosen. `onPick(place)`. */
  class DegreeScale {
    constructor({ letters, tie, onPick }) {
      Object.assign(this, { letters, tie, onPick });
      this.root = document.getElementById("degrees-template").content.cloneNode(true).firstElementChild;
      const row = this.root.querySelector("[data-steps]");
      const words = shortWords();
      for (let place = 1; place <= 9; place += 1) {
        const step = stepOf(place);
        if (step.side === null && !tie) continue;
        const button = document.createElement("button");
        button.type = "button";
        button.className = "degree";
        button.dataset.place = place;
        button.dataset.side = step.side ?? "tie";
        button.dataset.degree = step.degree;
        button.setAttribute("role", "radio");
        button.setAttribute("aria-label", sentence(step, letters));
        button.title = sentence(step, letters);
        const bar = document.createElement("span");
        bar.className = "degree-bar";
        const label = document.createElement("span");
        label.className = "degree-words";
        label.textContent = words[step.degree];
        const key = document.createElement("kbd");
        key.textContent = place;
        for (const part of [bar, label, key]) part.setAttribute("aria-hidden", "true");
        button.append(bar, label, key);
        button.addEventListener("click", () => onPick(place));
        button.addEventListener("keydown", (event) => this.arrow(event));
        row.append(button);
      }
      this.root.querySelectorAll("[data-end]").forEach((end, side) => (end.textContent = letters[side]));
      // On a phone the steps have no room for their words: the ends and the middle are named below them.
      this.root.querySelectorAll("[data-far]").forEach((end, side) => (end.textContent = fill(gettext("%(letter)s much better"), { letter: letters[side] })));
      this.root.querySelector("[data-middle]").textContent = tie ? gettext("tie") : gettext("unsure");
      this.draw(null);
    }

    get buttons() {
      return [...this.root.querySelectorAll(".degree")];
    }

    /* As in any group of radio buttons, arrows choose. */
    arrow(event) {
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const next = this.buttons[this.buttons.indexOf(event.target) + by];
      if (!next) return;
      next.focus();
      this.onPick(Number(next.dataset.place));
    }

    /* `place`, or null for none yet. */
    draw(place) {
      for (const button of this.buttons) {
        const chosen = Number(button.dataset.place) === place;
        button.setAttribute("aria-checked", String(chosen));
        button.tabIndex = chosen || (!place && button === this.buttons[0]) ? 0 : -1;
      }
      this.root.querySelector("[data-sentence]").textContent = place ? sentence(stepOf(place), this.letters) : gettext("Which is better, and by how much?");
      this.root.classList.toggle("chosen", Boolean(place));
    }
  }

  window.rondo = { ...window.rondo, DegreeScale, degreePlace: placeOf, degreeSentence: sentence, degreeStep: stepOf };
})();
