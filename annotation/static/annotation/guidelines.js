/* The guidelines: in a drawer, with a mark when there is a version that the person has not opened. */
(() => {
  "use strict";
  const { fill, post } = window.rondo;
  const $ = (selector) => document.querySelector(selector);

  class Guidelines {
    constructor({ url, typeset }) {
      Object.assign(this, { url, typeset });
      this.guideline = null;
      this.read = 0; // also what was opened here since the task was fetched
    }

    take(guideline) {
      this.guideline = guideline;
      this.read = Math.max(this.read, guideline?.read ?? 0);
      const box = $("[data-guidelines]");
      if (!guideline) box.textContent = gettext("This project has no guidelines yet.");
      else {
        box.innerHTML = guideline.html; // rendered and cleaned by the server
        $("#guidelines-title").textContent = fill(gettext("Guidelines, version %(n)s"), { n: guideline.number });
      }
      this.mark();
    }

    get isNew() {
      return Boolean(this.guideline) && this.guideline.number > this.read;
    }

    mark() {
      $("[data-guideline-new]").hidden = !this.isNew;
      $("[data-guideline-new-words]").textContent = this.read ? gettext("changed since you last read them") : gettext("not read yet");
    }

    open() {
      const changed = $("[data-guideline-changed]");
      changed.hidden = !this.isNew || !this.read;
      changed.textContent = fill(gettext("Changed since you last read them: that was version %(n)s."), { n: this.read });
      $("#guidelines-drawer").showModal();
      this.typeset($("[data-guidelines]"));
      if (!this.isNew) return;
      this.read = this.guideline.number;
      this.mark();
      post(this.url, { number: this.read }).catch(() => {}); // said again when they are next opened
    }
  }

  window.rondo = { ...window.rondo, Guidelines };
})();
