/* Ranking: answers are put in lanes, by key, by drag and by tap; who shares a lane is tied. */
(() => {
  "use strict";
  const { Answers, Board, fill, ratingContradiction, say, store } = window.rondo;
  const COLUMN_MIN = 216;
  const $ = (selector, root) => root.querySelector(selector);
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  class Ranking {
    constructor(desk) {
      this.desk = desk;
      this.stage = document.createElement("div");
      this.stage.className = "ranking-board";
      this.none = this.noneBuild();
      this.rewrite = null;
      this.coming = null; // what is to be in it, while its editor is fetched
      this.opening = false;
      desk.stage.append(this.stage, this.none);
      this.board = new Board(desk.task.candidates.map((one) => one.uid), { outside: desk.form.unacceptable !== false });
      this.answers = new Answers({
        candidates: desk.task.candidates,
        place: this.stage,
        describe: (uid) => this.whereabouts(uid),
      });
      this.layout = store.read("rondo:layout", "auto");
      this.lanesBuild();
      for (const one of desk.task.candidates) $(".lane-cards", this.stage).append(this.cardBuild(one));
      this.stage.addEventListener("click", (event) => this.clicked(event), { signal: desk.closing });
    }

    /* ---------------------------------------------------------- what the desk asks */

    take(draft) {
      this.board.fromDraft(draft);
      this.rewriteEnd();
      const original = draft?.rewrite && this.desk.task.candidates.find((one) => one.uid === draft.rewrite.original);
      // If its editor cannot be fetched now it is kept, and sent, as it is.
      if (original) this.rewriteOpen(original, String(draft.rewrite.text ?? "")).catch(() => {});
      this.layoutApply();
      this.draw({ animate: false });
      this.answers.foldApply();
    }

    draft() {
      return { ...this.board.toDraft(), rewrite: this.rewrite?.draft() ?? this.coming };
    }

    judgement() {
      const rewrite = this.rewrite?.isChanged ? this.rewrite.draft() : this.coming;
      return { tiers: this.board.tiers(), unacceptable: this.board.unacceptable(), rewrite };
    }

    missing() {
      const uids = this.board.unplaced();
      if (!uids.length) return null;
      const letters = uids.map((uid) => this.answers.letter(uid)).join(", ");
      return {
        words: fill(gettext("Not sent: %(letters)s still to be placed."), { letters }),
        point: () => {
          this.answers.go(uids[0], { speak: false });
          this.answers.want(uids);
        },
      };
    }

    count() {
      if (this.board.isComplete()) return gettext("All placed");
      const size = this.board.size;
      return fill(gettext("%(placed)s of %(size)s placed"), { placed: size - this.board.unplaced().length, size });
    }

    greeting() {
      const words = ngettext("%(n)s answer to rank.", "%(n)s answers to rank.", this.board.size);
      return `${fill(words, { n: this.board.size })} ${this.whereabouts(this.answers.focused)}.`;
    }

    hint() {
      if (this.rewrite && !this.rewrite.isChanged) return gettext("What is written anew is the answer unchanged: it is not sent.");
      const { board } = this;
      const odd = ratingContradiction(board.pairs(), this.desk.task.rated, (uid) => this.answers.letter(uid));
      if (odd) return odd;
      const alone = board.tiers().length === 1 && board.unacceptable().length === 0;
      return board.isComplete() && board.size > 2 && alone ? gettext("All are tied: is none better than another?") : "";
    }

    focus() {
      this.answers.go(this.answers.focused, { speak: false });
    }

    resized() {
      this.layoutApply();
    }

    get canUndo() {
      return this.board.past.length > 0;
    }

    undo() {
      const uid = this.board.undo();
      if (!uid) return;
      this.draw();
      this.answers.go(uid, { speak: false });
      say(fill(gettext("Undone. %(where)s."), { where: this.whereabouts(uid) }));
      this.desk.changed();
    }

    key(key, event) {
      const { answers, board } = this;
      if (this.opening) return true; // what is typed now is meant for the text that is about to open
      const uid = answers.focused;
      if (event.altKey) {
        if (key !== "ArrowUp" && key !== "ArrowDown") return false;
        this.moved(board.reorder(uid, key === "ArrowUp" ? -1 : 1));
        return true;
      }
      if (key.startsWith("Arrow")) {
        answers.toward(key);
        return true;
      }
      if (/^[1-9]$/.test(key)) {
        if (Number(key) > board.size) say(fill(gettext("There are %(n)s lanes."), { n: board.size }));
        else this.moved(board.place(uid, Number(key)));
        return true;
      }
      const moves = {
        "[": () => this.moved(board.shift(uid, -1)),
        "]": () => this.moved(board.shift(uid, 1)),
        "=": () => this.moved(board.tie(uid)),
        x: () => this.moved(board.unacceptableToggle(uid)),
        0: () => this.moved(board.place(uid, 0)),
        v: () => this.layoutToggle(),
        e: () => this.rewriteBegin(),
      };
      if (!Object.hasOwn(moves, key)) return answers.key(key);
      moves[key]();
      return true;
    }

    /* ---------------------------------------------------------- words */

    laneName(lane) {
      if (lane === 0) return gettext("to be placed");
      if (lane === this.board.unacceptableLane) return gettext("not acceptable");
      return fill(gettext("lane %(lane)s of %(size)s"), { lane, size: this.board.size });
    }

    whereabouts(uid) {
      const tied = this.board.tiedWith(uid).map((one) => this.answers.letter(one));
      const values = { letter: this.answers.letter(uid), where: this.laneName(this.board.laneOf(uid)) };
      if (!tied.length) return fill(gettext("Answer %(letter)s, %(where)s"), values);
      values.others = tied.join(gettext(" and "));
      return fill(gettext("Answer %(letter)s, %(where)s, tied with %(others)s"), values);
    }

    /* ---------------------------------------------------------- building */

    lanesBuild() {
      const { board } = this;
      const template = document.getElementById("lane-template").content;
      const byFinger = matchMedia("(pointer: coarse)").matches;
      for (let lane = 0; lane <= board.unacceptableLane; lane += 1) {
        const section = template.cloneNode(true).firstElementChild;
        const kind = lane === 0 ? "tray" : lane === board.unacceptableLane ? "unacceptable" : "rank";
        section.dataset.lane = lane;
        section.dataset.kind = kind;
        const name =
          kind === "tray" ? gettext("To place") : kind === "unacceptable" ? gettext("Not acceptable") : lane === 1 ? gettext("best") : lane === board.size ? gettext("worst") : "";
        $(".lane-number", section).textContent = kind === "rank" ? lane : kind === "unacceptable" ? "✕" : "";
        $(".lane-name", section).textContent = name;
        const label = kind === "rank" ? fill(gettext("Lane %(lane)s"), { lane }) : name;
        section.setAttribute("aria-label", kind === "rank" && name ? `${label}, ${name}` : label);
        section.hidden = lane > board.lastLane;
        this.stage.append(section);
        if (section.hidden) continue;
        window.Sortable.create($(".lane-cards", section), {
          group: "lanes",
          animation: calm() ? 0 : 160,
          // By the head with a mouse; by the grip alone under a finger, so that a swipe scrolls.
          handle: byFinger ? ".grip" : ".answer-head",
          delay: byFinger ? 0 : 200,
          delayOnTouchOnly: true,
          filter: "button",
          preventOnFilter: false,
          draggable: ".answer",
          ghostClass: "ghost",
          scrollSensitivity: 90,
          scrollSpeed: 16,
          onStart: () => this.desk.page.classList.add("dragging"),
          onEnd: (event) => this.dropped(event),
        });
      }
    }

    cardBuild(candidate) {
      const card = this.answers.build(candidate);
      const { letter } = candidate;
      $(".answer-tools", card).append(document.getElementById("ranking-tools-template").content.cloneNode(true));
      card.querySelector(".answer-head").prepend(document.getElementById("grip-template").content.cloneNode(true));
      $('[data-move="up"]', card).setAttribute("aria-label", fill(gettext("%(letter)s: up one rank"), { letter }));
      $('[data-move="down"]', card).setAttribute("aria-label", fill(gettext("%(letter)s: down one rank"), { letter }));
      const lanes = $(".answer-lanes", card);
      lanes.setAttribute("aria-label", fill(gettext("Lane of answer %(letter)s"), { letter }));
      for (let lane = 1; lane <= this.board.lastLane; lane += 1) {
        const button = document.createElement("button");
        const outside = lane === this.board.unacceptableLane;
        button.type = "button";
        button.dataset.place = lane;
        button.textContent = outside ? "✕" : lane;
        const name = outside ? gettext("not acceptable") : fill(gettext("lane %(lane)s"), { lane });
        button.setAttribute("aria-label", `${letter}: ${name}`);
        button.title = name;
        lanes.append(button);
      }
      return card;
    }

    /* ---------------------------------------------------------- none is good */

    /* Offered where no answer is acceptable. */
    noneBuild() {
      const box = document.getElementById("none-template").content.cloneNode(true).firstElementChild;
      box.querySelector("button").addEventListener("click", () => this.rewriteBegin(this.board.tiers()[0][0]));
      return box;
    }

    get mayRewrite() {
      return this.desk.form.rewrite !== false;
    }

    /* Write an answer anew: the one that has the focus, unless another is named. */
    async rewriteBegin(uid = this.answers.focused) {
      if (!this.mayRewrite) return say(gettext("This project asks for no answer written anew."));
      const other = this.rewrite && this.rewrite.candidate.uid !== uid;
      if (other && this.rewrite.isChanged) say(gettext("Take out what you have written first."));
      else if (other || !this.rewrite) {
        this.opening = true;
        try {
          const text = this.coming?.original === uid ? this.coming.text : undefined;
          await this.rewriteOpen(this.desk.task.candidates.find((one) => one.uid === uid), text);
        } catch {
          return say(gettext("Offline: an answer can be written anew when the server answers."));
        } finally {
          this.opening = false;
        }
      }
      this.rewrite.editor.focus();
      this.rewrite.root.scrollIntoView({ block: "nearest" });
      return this.desk.changed();
    }

    async rewriteOpen(candidate, text = candidate.text) {
      this.rewriteEnd();
      this.coming = text === candidate.text ? null : { original: candidate.uid, text };
      await this.desk.load("rewrite");
      if (this.desk.closing.aborted || this.rewrite) return;
      this.rewrite = new window.rondo.Rewrite({
        desk: this.desk,
        candidate,
        letter: this.answers.letter(candidate.uid),
        text,
        onChange: () => this.desk.changed(),
        onClose: () => {
          this.rewriteEnd();
          this.answers.go(candidate.uid, { speak: false });
          this.desk.changed();
        },
      });
      this.coming = null;
      this.desk.stage.append(this.rewrite.root);
      this.noneDraw();
      this.desk.redraw();
    }

    rewriteEnd() {
      this.rewrite?.root.remove();
      this.rewrite = null;
      this.coming = null;
      this.noneDraw();
    }

    noneDraw() {
      // So that it is there when it is asked for.
      if (this.mayRewrite && this.board.unacceptable().length) this.desk.load("rewrite").catch(() => {});
      this.none.hidden = Boolean(this.rewrite ?? this.coming) || !this.mayRewrite || this.board.unacceptable().length < this.board.size;
    }

    /* ---------------------------------------------------------- drawing */

    /* Put every card where the board says, gliding from where it was. */
    draw({ animate = true } = {}) {
      const { answers, board, stage } = this;
      const glide = animate && !calm();
      const cards = new Map(board.uids.map((uid) => [uid, answers.card(uid)]));
      const before = glide && new Map([...cards].map(([uid, card]) => [uid, card.getBoundingClientRect()]));
      const held = document.activeElement;
      for (const [lane, uids] of board.lanes.entries()) {
        const section = stage.children[lane];
        $(".lane-cards", section).append(...uids.map((uid) => cards.get(uid)));
        section.classList.toggle("vacant", uids.length === 0);
        section.classList.toggle("tied", uids.length > 1 && section.dataset.kind === "rank");
        section.style.flexGrow = uids.length === 0 ? 0 : lane === 0 ? Math.min(uids.length, 2) : 1;
      }
      for (const [uid, card] of cards) {
        const lane = board.laneOf(uid);
        const tied = board.tiedWith(uid).map((one) => answers.letter(one));
        card.setAttribute("aria-label", this.whereabouts(uid));
        $(".answer-note", card).textContent = tied.length ? fill(gettext("tied with %(others)s"), { others: tied.join(", ") }) : "";
        $(".answer-moves", card).hidden = lane === 0 || lane === board.unacceptableLane;
        for (const button of card.querySelectorAll("[data-place]")) {
          button.setAttribute("aria-pressed", String(Number(button.dataset.place) === lane));
        }
      }
      if (held && held !== document.activeElement && stage.contains(held)) held.focus({ preventScroll: true });
      answers.mark();
      this.noneDraw();
      if (!glide) return;
      for (const [uid, card] of cards) {
        const [from, to] = [before.get(uid), card.getBoundingClientRect()];
        const [x, y] = [from.left - to.left, from.top - to.top];
        if (Math.abs(x) + Math.abs(y) < 2 || Math.abs(y) > innerHeight) continue;
        card.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
          duration: 200,
          easing: "cubic-bezier(0.2, 0.7, 0.2, 1)",
        });
      }
    }

    layoutApply() {
      const wide = this.stage.closest("[data-wide]") ? this.stage.clientWidth >= 700 : innerWidth >= 1000;
      const room = this.stage.clientWidth - 76 - (this.board.size - 1) * 10;
      const columns = wide && (this.layout === "auto" ? room / this.board.size >= COLUMN_MIN : this.layout === "columns");
      this.desk.page.dataset.layout = columns ? "columns" : "rows";
    }

    layoutToggle() {
      this.layout = this.desk.page.dataset.layout === "columns" ? "rows" : "columns";
      store.write("rondo:layout", this.layout);
      this.layoutApply();
      this.answers.inView();
      say(this.desk.page.dataset.layout === "columns" ? gettext("Lanes as columns.") : gettext("Lanes as rows."));
    }

    /* ---------------------------------------------------------- moves */

    moved(changed, uid = this.answers.focused) {
      if (!changed) return say(fill(gettext("%(where)s. No change."), { where: this.whereabouts(uid) }));
      this.draw();
      this.answers.go(uid);
      return this.desk.changed();
    }

    dropped(event) {
      this.desk.page.classList.remove("dragging");
      const uid = event.item.dataset.uid;
      const lane = Number(event.to.closest(".lane").dataset.lane);
      this.moved(this.board.place(uid, lane, event.newDraggableIndex), uid);
    }

    clicked(event) {
      const button = event.target.closest("[data-place], [data-move]");
      if (!button) return;
      const uid = button.closest(".answer").dataset.uid;
      this.answers.take(uid);
      const lane = Number(button.dataset.place);
      // Pressed again, a lane lets go of the answer.
      if (lane) this.moved(this.board.place(uid, this.board.laneOf(uid) === lane ? 0 : lane), uid);
      else this.moved(this.board.reorder(uid, button.dataset.move === "up" ? -1 : 1), uid);
      // After a click the focus stays on the button that was pressed: it can be pressed again.
      button.focus({ preventScroll: true });
    }
  }

  window.rondo.kinds = { ...window.rondo.kinds, ranking: Ranking };
})();
