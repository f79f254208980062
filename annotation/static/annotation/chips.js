/* The small truths in the header: how long the task is reserved, whether the work is saved, how far
   the day has come. */
(() => {
  "use strict";
  const { fill, serverNow } = window.rondo;
  const $ = (selector) => document.querySelector(selector);

  /* The reservation of the task on show, counted down by the server's clock. */
  class LeaseChip {
    constructor() {
      this.until = 0;
      this.lapsed = false;
      this.renewedAt = 0;
    }

    take(until) {
      this.until = Date.parse(until) || 0;
      this.renewedAt = Date.now();
      this.draw();
    }

    /* A state of the assignment, as replies carry it. Returns whether it has lapsed just now. */
    takeState(state) {
      const before = this.lapsed;
      if (state === "live") this.lapsed = false;
      if (state === "expired") this.lapsed = true;
      this.draw();
      return this.lapsed && !before;
    }

    draw() {
      const left = Math.max(0, Math.floor((this.until - serverNow()) / 1000));
      const over = this.lapsed || left === 0;
      const box = $("[data-lease]");
      box.dataset.kind = over ? "lapsed" : left < 120 ? "short" : "";
      $("[data-lease-lead]").textContent = over ? `${gettext("reservation")} ` : `${gettext("reserved for you")} `;
      $("[data-lease-words]").textContent = over ? gettext("lapsed") : `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    }
  }

  /* Where the work is: being saved, saved, only on this device. */
  class SavedChip {
    constructor() {
      this.clear();
    }

    clear() {
      this.state = "";
      this.at = 0;
      this.draw();
    }

    take(state) {
      this.state = state;
      if (state === "saved") this.at = Date.now();
      this.draw();
    }

    draw() {
      const seconds = Math.round((Date.now() - this.at) / 1000);
      const minutes = Math.round(seconds / 60);
      const box = $("[data-saved]");
      box.hidden = !this.state;
      box.dataset.kind = this.state;
      $("[data-saved-words]").textContent =
        {
          saving: gettext("Saving…"),
          saved: seconds < 2 ? gettext("Saved") : seconds < 90 ? fill(gettext("Saved %(n)s s ago"), { n: seconds }) : fill(gettext("Saved %(n)s min ago"), { n: minutes }),
          offline: gettext("Offline – kept on this device"),
          refused: gettext("Not saved"),
        }[this.state] ?? "";
    }
  }

  /* What was sent today, and what is left. Counted here between replies, which know only the past. */
  class ProgressChip {
    constructor() {
      this.today = 0;
      this.open = 0;
    }

    take({ submitted_today: today, open }) {
      this.today = Math.max(this.today, today);
      this.open = open;
      this.draw();
    }

    sent(by) {
      this.today = Math.max(0, this.today + by);
      this.open = Math.max(0, this.open - by);
      this.draw();
    }

    draw() {
      const all = this.today + this.open + 1;
      $("[data-progress]").hidden = false;
      $("[data-progress] progress").max = all;
      $("[data-progress] progress").value = this.today;
      const left = this.open + 1;
      const values = { today: this.today, left: this.open < 200 ? left : `${left}+` };
      $("[data-progress-words]").textContent = fill(gettext("%(today)s done today, %(left)s waiting"), values);
    }
  }

  window.rondo = { ...window.rondo, LeaseChip, ProgressChip, SavedChip };
})();
