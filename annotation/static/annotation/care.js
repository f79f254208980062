/* Care for the person: only their attention counts as work, sensitive text is covered until they ask
   for it, and a long stretch of work has a break in it. */
(() => {
  "use strict";
  const { notice, store } = window.rondo;
  const $ = (selector) => document.querySelector(selector);
  const WORK_S = 50 * 60;
  const AGAIN_S = 25 * 60;
  const BREAK_MS = 5 * 60_000;

  function setting(selector, key) {
    const box = $(selector);
    box.checked = store.read(key, true);
    box.addEventListener("change", () => store.write(key, box.checked));
    return box;
  }

  const coverOn = setting("[data-cover-on]", "rondo:cover");
  const breaksOn = setting("[data-breaks-on]", "rondo:breaks");

  /* Whether somebody is there: when they last moved, pressed or scrolled anything. */
  class Attention {
    constructor() {
      this.at = Date.now();
      for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove", "scroll"]) {
        addEventListener(kind, () => (this.at = Date.now()), { passive: true, capture: true });
      }
    }

    within(ms) {
      return Date.now() - this.at < ms;
    }
  }

  /* Over a sensitive task: neither eye, key nor screen reader gets through. */
  class Cover {
    constructor(page) {
      this.page = page;
    }

    get isOn() {
      return this.page.dataset.covered === "yes";
    }

    take(isSensitive) {
      this.#set(Boolean(isSensitive) && coverOn.checked);
    }

    lift() {
      this.#set(false);
    }

    #set(on) {
      this.page.dataset.covered = on ? "yes" : "no";
      $("[data-cover]").hidden = !on;
      for (const place of [$(".desk-prompt"), $("[data-stage]")]) place.inert = on;
      if (on) $('[data-act="uncover"]').focus();
    }
  }

  /* Counts seconds of work; five minutes away begin anew. */
  class Breaks {
    constructor() {
      this.workedS = 0;
      this.nextS = WORK_S;
      this.awaySince = 0;
    }

    tick(isActive) {
      const now = Date.now();
      if (isActive) {
        if (this.awaySince && now - this.awaySince > BREAK_MS) Object.assign(this, { workedS: 0, nextS: WORK_S });
        this.awaySince = 0;
        this.workedS += 1;
      } else this.awaySince ||= now;
      if (this.workedS < this.nextS) return;
      this.nextS = this.workedS + AGAIN_S;
      const minutes = Math.round(this.workedS / 60);
      if (breaksOn.checked) notice(interpolate(gettext("You have worked for %s minutes. A few minutes away do your eyes and your judgement good."), [minutes]), "rest");
    }
  }

  window.rondo = { ...window.rondo, Attention, Breaks, Cover };
})();
