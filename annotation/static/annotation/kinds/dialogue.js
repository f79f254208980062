/* Dialogue: the person writes, two live answers come, the better one is chosen and the talk goes on. */
(() => {
  "use strict";
  const { Answers, DegreeScale, degreePlace, degreeSentence, degreeStep, fill, listen, say, wordsCount } = window.rondo;
  const { htmlShow, textRender } = window.rondo;
  const $ = (selector, root) => root.querySelector(selector);
  const LETTERS = ["A", "B"];

  class Dialogue {
    constructor(desk) {
      this.desk = desk;
      this.maxTurns = desk.form.max_turns ?? 4;
      desk.task.answers ??= [];
      this.past = [];
      this.turns = []; // done: [{user, candidates: [uid, uid], chosen, degree}]
      this.open = null; // {user, pair: [candidate, candidate] or null while they are written, place}
      this.root = document.getElementById("dialogue-template").content.cloneNode(true).firstElementChild;
      desk.stage.append(this.root);
      this.talk = $("[data-talk]", this.root);
      this.turn = $("[data-turn]", this.root);
      this.form = $("[data-write]", this.root);
      this.message = $("[data-message]", this.root);
      this.scale = new DegreeScale({ letters: LETTERS, tie: false, onPick: (place) => this.pick(place) });
      $("[data-scale]", this.root).replaceWith(this.scale.root);
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.send();
      });
      this.message.addEventListener("input", () => desk.changed());
      this.message.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !this.message.value.trim()) return;
        event.preventDefault();
        event.stopPropagation(); // it sends the message, not the task
        this.send();
      });
      $("[data-retry]", this.root).addEventListener("click", () => this.ask());
      $("[data-onward]", this.root).addEventListener("click", () => this.onward());
      this.root.tabIndex = -1;
    }

    /* ---------------------------------------------------------- what the desk asks */

    take(draft) {
      const pairOf = (user, uids) =>
        this.desk.task.answers.find((one) => one.user === user && uids?.every?.((uid) => one.candidates.some((other) => other.uid === uid)));
      for (const turn of Array.isArray(draft?.turns) ? draft.turns : []) {
        const found = pairOf(turn.user, turn.candidates);
        if (!found) break;
        const place = degreePlace({ side: found.candidates.findIndex((one) => one.uid === turn.chosen), degree: turn.degree });
        this.turns.push({ user: turn.user, pair: found.candidates, place });
      }
      const open = draft?.open;
      const found = open && pairOf(open.user, open.candidates);
      // What was taken back after sending comes open again at its last turn.
      if (found) this.open = { user: open.user, pair: found.candidates, place: open.place ?? null };
      else if (!draft?.open && this.turns.length && typeof draft.message !== "string") this.open = this.turns.pop();
      this.message.value = typeof draft?.message === "string" ? draft.message : open && !found ? open.user : "";
      this.draw();
    }

    draft() {
      const open = this.open && { user: this.open.user, candidates: this.open.pair?.map((one) => one.uid) ?? [], place: this.open.place };
      return { turns: this.turns.map((turn) => this.told(turn)), open, message: this.message.value };
    }

    /* A turn as it is sent. */
    told({ user, pair, place }) {
      const { side, degree } = degreeStep(place);
      return { user, candidates: pair.map((one) => one.uid), chosen: pair[side].uid, degree };
    }

    get openIsChosen() {
      return Boolean(this.open?.pair && this.open.place);
    }

    judgement() {
      const turns = this.openIsChosen ? [...this.turns, this.open] : this.turns;
      return { turns: turns.map((turn) => this.told(turn)) };
    }

    missing() {
      if (this.open && !this.open.pair)
        return { words: gettext("Not sent: the answers are still being written."), point: () => this.rest() };
      if (this.open && !this.open.place)
        return { words: gettext("Not sent: say which answer is better."), point: () => this.scale.root.classList.add("wanted") };
      if (!this.turns.length && !this.open)
        return { words: gettext("Not sent: the talk has no turn yet."), point: () => this.message.focus() };
      return null;
    }

    count() {
      const done = this.turns.length + (this.openIsChosen ? 1 : 0);
      return fill(gettext("Turn %(n)s of at most %(all)s"), { n: Math.max(1, done), all: this.maxTurns });
    }

    hint() {
      return this.openIsChosen || !this.message.value.trim() || !this.turns.length ? "" : gettext("Your last message is written and not sent.");
    }

    greeting() {
      return gettext("Write to the assistant; two answers come.");
    }

    focus() {
      if (this.open) this.rest();
      else this.message.focus();
    }

    rest() {
      if (this.answers) this.answers.go(this.answers.focused, { speak: false });
      else this.root.focus({ preventScroll: true });
    }

    get canUndo() {
      return this.past.length > 0 && !(this.open && !this.open.pair && this.asking);
    }

    undo() {
      const { turns, open, message } = this.past.pop();
      Object.assign(this, { turns, open });
      this.message.value = message;
      this.draw();
      this.focus();
      say(gettext("Undone."));
      this.desk.changed();
    }

    remember() {
      this.past.push({ turns: [...this.turns], open: this.open && { ...this.open }, message: this.message.value });
    }

    key(key) {
      if (/^[1-9]$/.test(key) && this.open) {
        if (key === "5") say(gettext("No ties here: choose negligibly better if you are unsure."));
        else this.pick(Number(key));
        return true;
      }
      if ((key === "ArrowLeft" || key === "ArrowRight") && this.answers) {
        this.answers.go(key === "ArrowLeft" ? "0" : "1");
        return true;
      }
      if (key === "n") this.onward();
      else if (key === "e" && !this.form.hidden) this.message.focus();
      else return this.answers && this.open?.pair ? this.answers.key(key) : false;
      return true;
    }

    /* ---------------------------------------------------------- a turn */

    send() {
      const user = this.message.value;
      if (!user.trim() || this.open) return this.message.focus();
      this.remember();
      this.open = { user, pair: null, place: null };
      this.message.value = "";
      this.draw();
      this.rest();
      this.desk.changed();
      return this.ask();
    }

    /* Both answers, part by part. A choice may be made before they are whole. */
    async ask() {
      const turn = this.open;
      const last = this.turns.at(-1);
      const texts = ["", ""];
      this.asking = true;
      this.trouble("");
      this.desk.redraw();
      say(gettext("The answers are being written."));
      try {
        await listen(
          this.desk.urlOf("answers"),
          { user: turn.user, turns: this.turns.length, after: last ? this.told(last).chosen : null },
          (name, data) => {
            if (this.open !== turn) return;
            if (name === "delta") {
              texts[data.candidate] += data.text;
              const card = this.answers.card(String(data.candidate));
              card.classList.add("writing-now");
              this.textShow(card, texts[data.candidate]);
            } else if (name === "turn") this.arrived(turn, data);
            else if (name === "failed") this.trouble(data.message);
          },
          this.desk.closing,
        );
        if (this.open === turn && !turn.pair && $("[data-retry]", this.root).hidden) this.trouble(gettext("The connection broke off."));
      } catch (refusal) {
        if (!this.desk.closing.aborted && this.open === turn) this.trouble(refusal.message);
      } finally {
        this.asking = false;
        this.desk.redraw();
      }
    }

    textShow(card, text) {
      const plain = document.createElement("pre");
      plain.className = "plain";
      plain.textContent = text;
      $(".answer-text", card).replaceChildren(plain);
      $(".answer-words", card).textContent = fill(ngettext("%(n)s word", "%(n)s words", wordsCount(text)), { n: wordsCount(text) });
    }

    arrived(turn, { user, candidates }) {
      turn.pair = candidates;
      turn.user = user;
      this.desk.task.answers.push({ user, candidates });
      this.pairDraw();
      this.desk.changed();
      say(gettext("Both answers are there. Which is better?"));
    }

    trouble(words) {
      const place = $("[data-trouble]", this.turn);
      place.hidden = !words;
      place.textContent = words;
      $("[data-retry]", this.root).hidden = !words;
      if (words) say(words);
    }

    pick(place) {
      if (!this.open || place === this.open.place) return;
      this.remember();
      this.open.place = place;
      this.pairMark();
      this.desk.changed();
      say(`${degreeSentence(degreeStep(place), LETTERS)}.`);
    }

    onward() {
      if (!this.openIsChosen) return say(this.missing()?.words ?? "");
      if (this.turns.length + 1 >= this.maxTurns) return say(gettext("The talk is as long as it may be: submit it."));
      this.remember();
      this.turns.push(this.open);
      this.open = null;
      this.draw();
      this.message.focus();
      this.form.scrollIntoView({ block: "nearest" });
      return this.desk.changed();
    }

    /* ---------------------------------------------------------- drawing */

    draw() {
      const said = this.turns.flatMap((turn) => {
        const { side } = degreeStep(turn.place);
        return [this.userDraw(turn.user), this.chosenDraw(turn, side)];
      });
      if (this.open) said.push(this.userDraw(this.open.user));
      this.talk.replaceChildren(...said);
      this.turn.hidden = !this.open;
      this.form.hidden = Boolean(this.open) || this.turns.length >= this.maxTurns;
      $("[data-onward]", this.root).hidden = this.turns.length + 1 >= this.maxTurns;
      this.trouble("");
      if (this.open) this.pairDraw();
      else this.answers = null;
      this.desk.typeset(this.root);
    }

    userDraw(text) {
      const box = document.createElement("div");
      box.className = "said prose";
      box.dataset.role = "user";
      box.dir = "auto";
      htmlShow(box, null, text);
      textRender(this.desk.previewUrl, text).then((html) => html !== null && htmlShow(box, html, text));
      return box;
    }

    chosenDraw({ pair, place }, side) {
      const box = document.createElement("div");
      box.className = "said";
      const text = document.createElement("div");
      text.className = "prose";
      text.dir = "auto";
      text.innerHTML = pair[side].html; // rendered and cleaned by the server
      const choice = document.createElement("p");
      choice.className = "said-choice";
      choice.textContent = degreeSentence(degreeStep(place), LETTERS);
      box.append(text, choice);
      return box;
    }

    pairDraw() {
      const row = $("[data-pair]", this.root);
      row.replaceChildren();
      const candidates = LETTERS.map((letter, side) => ({ letter, html: "", words: 0, ...this.open.pair?.[side], uid: String(side) }));
      this.answers = new Answers({
        candidates,
        place: row,
        describe: (uid) => fill(gettext("Answer %(letter)s"), { letter: LETTERS[Number(uid)] }),
      });
      for (const one of candidates) {
        const card = this.answers.build(one);
        card.setAttribute("aria-label", fill(gettext("Answer %(letter)s"), { letter: one.letter }));
        row.append(card);
      }
      this.answers.mark();
      this.answers.linkApply();
      this.pairMark();
      this.desk.typeset(row);
    }

    pairMark() {
      const { place } = this.open;
      this.scale.draw(place);
      this.scale.root.classList.remove("wanted");
      const side = place ? degreeStep(place).side : null;
      for (const uid of ["0", "1"]) this.answers.card(uid).classList.toggle("better", side === Number(uid));
      $("[data-onward]", this.root).disabled = !this.openIsChosen;
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, dialogue: Dialogue };
})();
