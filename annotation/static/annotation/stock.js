/* The tasks that are handed out and wait behind the one on show: one fetched ahead, and what an undo
   laid aside. A task that was reserved too long ago is given up for another. */
(() => {
  "use strict";
  const { post } = window.rondo;

  class Stock {
    /* `urls.next`, `urlOf(name, uid)`; `arrived(given)` hears of each new task, to make it ready. */
    constructor({ next, urlOf, arrived }) {
      Object.assign(this, { next, urlOf, arrived });
      this.items = [];
      this.busyWith = new Set(); // on show, or sent from here: what a reply repeats of them is old
      this.asked = "";
      this.asking = null;
    }

    /* Keep a task that a reply brought, unless this page has it already. */
    add(given, { first = false, draft = null } = {}) {
      const uid = given?.assignment.uid;
      if (!given || this.busyWith.has(uid) || this.items.some((one) => one.given.assignment.uid === uid)) return;
      this.items[first ? "unshift" : "push"]({ given, draft, at: Date.now() });
      this.arrived(given);
    }

    shift() {
      return this.items.shift() ?? null;
    }

    get size() {
      return this.items.length;
    }

    /* Ask for the task after `uid`, once, while that one is worked on. */
    ahead(uid) {
      if (this.items.length || this.asked === uid) return;
      this.asked = uid;
      this.asking = post(this.next, { after: uid })
        .then((given) => this.add(given))
        .catch(() => (this.asked = ""))
        .finally(() => (this.asking = null));
    }

    /* What came in while waiting for what was asked. */
    async settled() {
      await this.asking;
      return this.shift();
    }

    /* Keep the reservations of what waits; let go of those that went to others. */
    async renew() {
      for (const item of [...this.items]) {
        const uid = item.given.assignment.uid;
        try {
          const reply = await post(this.urlOf("renew", uid));
          item.at = Date.now();
          if (reply.state === "live") item.given.assignment.lease_until = reply.lease_until;
          else this.items = this.items.filter((one) => one !== item);
        } catch {
          /* Offline: it is tried again when it is shown. */
        }
      }
    }
  }

  window.rondo = { ...window.rondo, Stock };
})();
