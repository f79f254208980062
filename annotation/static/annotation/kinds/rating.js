/* Rating: each answer by itself, from 1 to 7, and the project's flags. */
(() => {
  "use strict";
  const { Answers, fill, say } = window.rondo;
  const $ = (selector, root) => root.querySelector(selector);
  const BEST = 7;
  const copy = (ratings) => structuredClone(ratings);

  class Rating {
    constructor(desk) {
      this.desk = desk;
      this.flags = desk.form.flags ?? [];
      this.uids = desk.task.candidates.map((one) => one.uid);
      this.past = [];
      this.ratings = Object.fromEntries(this.uids.map((uid) => [uid, { overall: null, flags: [] }]));
      desk.stage.classList.add("rating-answers");
      this.answers = new Answers({ candidates: desk.task.candidates, place: desk.stage, describe: (uid) => this.whereabouts(uid) });
      for (const one of desk.task.candidates) desk.stage.append(this.cardBuild(one));
      desk.stage.addEventListener("click", (event) => this.clicked(event), { signal: desk.closing });
    }

    cardBuild(candidate) {
      const card = this.answers.build(candidate);
      const { letter } = candidate;
      const panel = document.getElementById("rating-template").content.cloneNode(true).firstElementChild;
      panel.setAttribute("aria-label", fill(gettext("Rating of answer %(letter)s"), { letter }));
      const scale = $("[data-overall]", panel);
      scale.setAttribute("aria-label", fill(gettext("Overall quality of %(letter)s, 1 to 7"), { letter }));
      for (let value = 1; value <= BEST; value += 1) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.value = value;
        button.textContent = value;
        button.setAttribute("aria-label", fill(gettext("%(letter)s: %(value)s of 7"), { letter, value }));
        scale.append(button);
      }
      const list = $("[data-flags]", panel);
      list.hidden = !this.flags.length;
      list.setAttribute("aria-label", fill(gettext("What is wrong with %(letter)s"), { letter }));
      for (const flag of this.flags) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "mark-button";
        button.dataset.flag = flag.name;
        button.append(flag.label);
        if (flag.key) {
          const key = document.createElement("kbd");
          key.textContent = flag.key.toUpperCase();
          key.setAttribute("aria-hidden", "true");
          button.append(" ", key);
        }
        list.append(button);
      }
      card.append(panel);
      return card;
    }

    take(draft) {
      const given = draft?.ratings ?? {};
      const names = new Set(this.flags.map((flag) => flag.name));
      for (const uid of this.uids) {
        const overall = Number(given[uid]?.overall);
        const flags = Array.isArray(given[uid]?.flags) ? given[uid].flags.filter((name) => names.has(name)) : [];
        this.ratings[uid] = { overall: overall >= 1 && overall <= BEST ? overall : null, flags };
      }
      this.answers.mark();
      this.draw();
      this.answers.foldApply();
    }

    draft() {
      return { ratings: copy(this.ratings) };
    }

    judgement() {
      return this.draft();
    }

    unrated() {
      return this.uids.filter((uid) => !this.ratings[uid].overall);
    }

    missing() {
      const uids = this.unrated();
      if (!uids.length) return null;
      const letters = uids.map((uid) => this.answers.letter(uid)).join(", ");
      return {
        words: fill(gettext("Not sent: %(letters)s still to be rated."), { letters }),
        point: () => {
          this.answers.go(uids[0], { speak: false });
          this.answers.want(uids);
        },
      };
    }

    count() {
      const rated = this.uids.length - this.unrated().length;
      if (rated === this.uids.length) return gettext("All rated");
      return fill(gettext("%(rated)s of %(size)s rated"), { rated, size: this.uids.length });
    }

    hint() {
      for (const uid of this.uids) {
        const { overall, flags } = this.ratings[uid];
        if (overall < 6 || !flags.length) continue;
        const label = this.flags.find((flag) => flag.name === flags[0]).label;
        return fill(gettext("%(letter)s has %(overall)s of 7, and yet “%(flag)s”."), { letter: this.answers.letter(uid), overall, flag: label });
      }
      return "";
    }

    greeting() {
      const words = ngettext("%(n)s answer to rate.", "%(n)s answers to rate.", this.uids.length);
      return `${fill(words, { n: this.uids.length })} ${this.whereabouts(this.answers.focused)}.`;
    }

    whereabouts(uid) {
      const { overall, flags } = this.ratings[uid];
      const letter = this.answers.letter(uid);
      const said = overall
        ? fill(gettext("Answer %(letter)s, %(value)s of 7"), { letter, value: overall })
        : fill(gettext("Answer %(letter)s, not rated yet"), { letter });
      const labels = this.flags.filter((flag) => flags.includes(flag.name)).map((flag) => flag.label);
      return [said, ...labels].join(", ");
    }

    focus() {
      this.answers.go(this.answers.focused, { speak: false });
    }

    get canUndo() {
      return this.past.length > 0;
    }

    undo() {
      this.ratings = this.past.pop();
      this.draw();
      say(fill(gettext("Undone. %(where)s."), { where: this.whereabouts(this.answers.focused) }));
      this.desk.changed();
    }

    set(uid, part) {
      this.past.push(copy(this.ratings));
      Object.assign(this.ratings[uid], part);
      this.draw();
      say(`${this.whereabouts(uid)}.`);
      this.desk.changed();
    }

    rate(uid, overall) {
      // Pressed again, a figure is taken away.
      this.set(uid, { overall: this.ratings[uid].overall === overall ? null : overall });
    }

    flagToggle(uid, name) {
      const { flags } = this.ratings[uid];
      const chosen = this.flags.map((flag) => flag.name).filter((one) => (one === name) !== flags.includes(one));
      this.set(uid, { flags: chosen });
    }

    clicked(event) {
      const button = event.target.closest("[data-value], [data-flag]");
      if (!button) return;
      const { uid } = button.closest(".answer").dataset;
      this.answers.take(uid);
      if (button.dataset.value) this.rate(uid, Number(button.dataset.value));
      else this.flagToggle(uid, button.dataset.flag);
    }

    draw() {
      for (const uid of this.uids) {
        const card = this.answers.card(uid);
        const { overall, flags } = this.ratings[uid];
        card.setAttribute("aria-label", this.whereabouts(uid));
        card.classList.toggle("done", Boolean(overall));
        for (const button of card.querySelectorAll("[data-value]")) {
          button.setAttribute("aria-pressed", String(Number(button.dataset.value) === overall));
          button.classList.toggle("below", Number(button.dataset.value) < (overall ?? 0));
        }
        for (const button of card.querySelectorAll("[data-flag]")) {
          button.setAttribute("aria-pressed", String(flags.includes(button.dataset.flag)));
        }
      }
    }

    key(key, event) {
      const uid = this.answers.focused;
      if (/^[1-7]$/.test(key)) {
        if (this.ratings[uid].overall === Number(key)) say(`${this.whereabouts(uid)}.`);
        else this.rate(uid, Number(key));
        return true;
      }
      if (key === "ArrowDown" || key === "ArrowUp") {
        this.answers.step(key === "ArrowDown" ? 1 : -1);
        return true;
      }
      // A flag's key is the project's: it is meant as it was pressed, whatever else it may be.
      const pressed = event.key?.toLowerCase() ?? key;
      const flag = this.flags.find((one) => one.key?.toLowerCase() === pressed);
      if (flag) {
        this.flagToggle(uid, flag.name);
        return true;
      }
      return this.answers.key(key);
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, rating: Rating };
})();
