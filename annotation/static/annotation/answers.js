/* The answers of a task as cards: their focus, how long they are, folding, and what differs. */
(() => {
  "use strict";
  const { differenceClear, differenceMark, fill, say, scrollLink, sourceShow, store } = window.rondo;

  const $ = (selector, root) => root.querySelector(selector);

  function lengthWords({ words, tokens }) {
    const said = fill(ngettext("%(n)s word", "%(n)s words", words), { n: words });
    return tokens ? `${said} · ${fill(ngettext("%(n)s token", "%(n)s tokens", tokens), { n: tokens })}` : said;
  }

  class Answers {
    /* `describe(uid)` says where an answer stands; `onFocus(uid)` hears of a new focus. */
    constructor({ candidates, place, describe, onFocus = () => {} }) {
      Object.assign(this, { candidates, place, describe, onFocus });
      this.uids = candidates.map((one) => one.uid);
      this.focused = this.uids[0];
      this.before = this.uids[1] ?? this.uids[0];
      this.compared = "";
      this.asSource = false;
      this.linkEnd = null;
    }

    /* A card with its text; the kind adds its own controls to .answer-tools or after the text. */
    build(candidate) {
      const card = document.getElementById("answer-template").content.cloneNode(true).firstElementChild;
      card.dataset.uid = candidate.uid;
      $(".answer-letter", card).textContent = candidate.letter;
      $(".answer-words", card).textContent = lengthWords(candidate);
      $(".answer-text", card).innerHTML = candidate.html; // rendered and cleaned by the server
      $(".answer-text", card).dir = "auto";
      const take = () => this.take(candidate.uid);
      card.addEventListener("focusin", take);
      card.addEventListener("pointerdown", take);
      return card;
    }

    card(uid) {
      return this.place.querySelector(`.answer[data-uid="${uid}"]`);
    }

    letter(uid) {
      return this.candidates.find((one) => one.uid === uid).letter;
    }

    mark() {
      for (const uid of this.uids) {
        const card = this.card(uid);
        card.tabIndex = uid === this.focused ? 0 : -1;
        card.classList.toggle("focused", uid === this.focused);
      }
    }

    take(uid) {
      if (this.focused === uid) return;
      this.before = this.focused;
      this.focused = uid;
      this.mark();
      this.onFocus(uid);
    }

    inView() {
      const card = this.card(this.focused);
      const box = card.getBoundingClientRect();
      const [top, bottom] = [110, innerHeight - 80];
      if (box.top < top || box.top > bottom - 120) card.scrollIntoView({ block: "start", behavior: "smooth" });
    }

    go(uid, { speak = true } = {}) {
      this.take(uid);
      this.mark();
      this.card(uid).focus({ preventScroll: true });
      this.inView();
      if (speak) say(`${this.describe(uid)}.`);
    }

    step(by) {
      const at = this.uids.indexOf(this.focused);
      this.go(this.uids[(at + by + this.uids.length) % this.uids.length]);
    }

    /* The nearest answer on the side an arrow points to. */
    toward(key) {
      const middle = (uid) => {
        const box = this.card(uid).getBoundingClientRect();
        return [box.left + box.width / 2, box.top + Math.min(box.height / 2, 40)];
      };
      const [x0, y0] = middle(this.focused);
      let best = null;
      for (const uid of this.uids) {
        if (uid === this.focused) continue;
        const [x, y] = middle(uid);
        const [along, aside] =
          key === "ArrowRight" ? [x - x0, y - y0] : key === "ArrowLeft" ? [x0 - x, y - y0] : key === "ArrowDown" ? [y - y0, x - x0] : [y0 - y, x - x0];
        const distance = along + 2 * Math.abs(aside);
        if (along > 8 && (!best || distance < best.distance)) best = { uid, distance };
      }
      if (best) this.go(best.uid);
    }

    /* Shine a light on answers that still want something. */
    want(uids) {
      for (const uid of uids) {
        this.card(uid).classList.remove("wanted");
        requestAnimationFrame(() => this.card(uid)?.classList.add("wanted"));
      }
    }

    /* All answers folded to one height, or all open: a fold never favours the short. */
    foldApply() {
      this.place.classList.toggle("folded", store.read("rondo:folded", false));
      this.linkApply();
      for (const uid of this.uids) {
        const text = $(".answer-text", this.card(uid));
        text.classList.toggle("cut", text.scrollHeight > text.clientHeight + 4);
      }
    }

    foldToggle() {
      store.write("rondo:folded", !store.read("rondo:folded", false));
      this.foldApply();
      say(this.place.classList.contains("folded") ? gettext("Long answers are folded.") : gettext("Answers are shown whole."));
    }

    /* All answers as they were written, Markdown and all, or as they are read. */
    sourceToggle() {
      this.differenceHide();
      this.asSource = !this.asSource;
      for (const { uid, text } of this.candidates) sourceShow(this.card(uid), text, this.asSource);
      this.foldApply();
      say(this.asSource ? gettext("Answers as they were written.") : gettext("Answers as they are read."));
    }

    /* Answers of one height that scroll together, each as far along as the others. */
    linkApply() {
      const linked = store.read("rondo:linked", false);
      this.place.classList.toggle("linked", linked);
      this.linkEnd?.abort();
      this.linkEnd = new AbortController();
      const places = this.uids.map((uid) => $(".answer-text", this.card(uid)));
      for (const [at, place] of places.entries()) {
        // What scrolls is reached by keys too.
        if (linked) Object.assign(place, { tabIndex: 0, role: "region", ariaLabel: fill(gettext("Text of answer %(letter)s"), { letter: this.candidates[at].letter }) });
        else if (place.role === "region" && !place.dataset.scrolls) for (const name of ["tabindex", "role", "aria-label"]) place.removeAttribute(name);
      }
      if (linked) scrollLink(places, this.linkEnd.signal);
    }

    linkToggle() {
      store.write("rondo:linked", !store.read("rondo:linked", false));
      this.linkApply();
      say(this.place.classList.contains("linked") ? gettext("The answers scroll together.") : gettext("Each answer is shown whole."));
    }

    /* Words that the focused answer and the one focused before it do not share; again to put away. */
    differenceToggle() {
      const [one, other] = [this.focused, this.before];
      const pair = [one, other].sort().join();
      const again = this.compared === pair;
      this.differenceHide();
      if (again || one === other) return say(gettext("Differences put away."));
      this.compared = pair;
      const count = differenceMark($(".answer-text", this.card(one)), $(".answer-text", this.card(other)));
      for (const uid of [one, other]) {
        const note = $(".answer-compared", this.card(uid));
        note.textContent = fill(gettext("compared with %(letter)s"), { letter: this.letter(uid === one ? other : one) });
      }
      return say(
        count
          ? fill(ngettext("%(n)s word differs between %(a)s and %(b)s.", "%(n)s words differ between %(a)s and %(b)s.", count), {
              n: count,
              a: this.letter(one),
              b: this.letter(other),
            })
          : fill(gettext("%(a)s and %(b)s have the same words."), { a: this.letter(one), b: this.letter(other) }),
      );
    }

    differenceHide() {
      this.compared = "";
      for (const uid of this.uids) {
        differenceClear(this.card(uid));
        $(".answer-compared", this.card(uid)).textContent = "";
      }
    }

    /* Keys that every kind with answers shares. */
    key(key) {
      const keys = {
        j: () => this.step(1),
        k: () => this.step(-1),
        d: () => this.differenceToggle(),
        o: () => this.foldToggle(),
        t: () => this.sourceToggle(),
        l: () => this.linkToggle(),
      };
      if (!Object.hasOwn(keys, key)) return false;
      keys[key]();
      return true;
    }
  }

  const AT_ODDS = 2; // steps of a rating, of 7, that are no slip of the hand

  /* Where somebody now puts an answer above another that they rated clearly higher before: words for
     the first such pair, or "". `above`: pairs of uids [better, worse] as they are judged now. */
  function ratingContradiction(above, rated, letterOf) {
    const found = above.find(([better, worse]) => rated?.[worse] - rated?.[better] >= AT_ODDS);
    if (!found) return "";
    const [a, b] = found;
    return fill(gettext("You rated %(b)s %(high)s of 7 and %(a)s %(low)s before, and now %(a)s is the better one."), {
      a: letterOf(a),
      b: letterOf(b),
      low: rated[a],
      high: rated[b],
    });
  }

  window.rondo = { ...window.rondo, Answers, lengthWords, ratingContradiction };
})();
