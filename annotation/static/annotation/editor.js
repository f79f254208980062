/* A place to write in Markdown, with the length and, beside or behind it, what it will look like. */
(() => {
  "use strict";
  const { difference, fill, post, store, wordsCount, wordsCut } = window.rondo;
  const $ = (selector, root) => root.querySelector(selector);
  const PREVIEW_AFTER_MS = 350;

  class Editor {
    /* `views`: the panes beside the text, [{name, label, draw(place, text)}]; "preview" draws itself. */
    constructor({ label, placeholder = "", onInput, previewUrl, typeset, views = [] }) {
      Object.assign(this, { onInput, previewUrl, typeset });
      this.root = document.getElementById("editor-template").content.cloneNode(true).firstElementChild;
      this.area = $("textarea", this.root);
      this.area.setAttribute("aria-label", label);
      this.area.placeholder = placeholder;
      this.views = [...views, { name: "preview", label: gettext("Preview"), draw: (place, text) => this.previewDraw(place, text) }];
      this.timer = 0;
      this.asked = 0;
      for (const { name, label: words } of this.views) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.pane = name;
        button.textContent = words;
        button.addEventListener("click", () => this.paneShow(this.pane === name ? "" : name));
        $("[data-panes]", this.root).append(button);
      }
      this.area.addEventListener("input", () => {
        this.measure();
        this.paneLater();
        onInput(this.area.value);
      });
      this.paneShow(store.read("rondo:pane", this.views[0].name), { keep: false });
      this.measure();
    }

    get text() {
      return this.area.value;
    }

    /* Put a text there; said to nobody. */
    set text(text) {
      this.area.value = text;
      this.measure();
      this.paneDraw();
    }

    focus({ end = true } = {}) {
      this.area.focus();
      if (end) this.area.setSelectionRange(this.area.value.length, this.area.value.length);
    }

    measure() {
      const words = wordsCount(this.area.value);
      $("[data-length]", this.root).textContent = fill(ngettext("%(n)s word", "%(n)s words", words), { n: words });
    }

    paneNext() {
      const names = ["", ...this.views.map((one) => one.name)];
      this.paneShow(names[(names.indexOf(this.pane) + 1) % names.length]);
    }

    paneShow(name, { keep = true } = {}) {
      this.pane = this.views.some((one) => one.name === name) ? name : name ? this.views[0].name : "";
      if (keep) store.write("rondo:pane", this.pane);
      for (const button of this.root.querySelectorAll("[data-panes] button")) {
        button.setAttribute("aria-pressed", String(button.dataset.pane === this.pane));
      }
      this.root.classList.toggle("with-pane", Boolean(this.pane));
      this.paneDraw();
    }

    paneLater() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.paneDraw(), PREVIEW_AFTER_MS);
    }

    paneDraw() {
      clearTimeout(this.timer);
      const view = this.views.find((one) => one.name === this.pane);
      if (view) view.draw($("[data-pane-text]", this.root), this.area.value);
    }

    /* Rendered by the server, as all text is; without it, as it was written. */
    async previewDraw(place, text) {
      const mine = (this.asked += 1);
      const html = await textRender(this.previewUrl, text);
      if (mine !== this.asked || this.pane !== "preview") return;
      htmlShow(place, html, text);
      if (!text.trim()) place.textContent = gettext("What you write appears here as it will be read.");
      this.typeset(place);
    }
  }

  /* Safe HTML of a Markdown text, or null when the server does not answer. */
  async function textRender(url, text) {
    if (!text.trim()) return "";
    try {
      return (await post(url, { text })).html;
    } catch {
      return null;
    }
  }

  function htmlShow(place, html, text) {
    if (html !== null) place.innerHTML = html;
    else {
      const plain = document.createElement("pre");
      plain.className = "plain";
      plain.textContent = text;
      place.replaceChildren(plain);
    }
  }

  /* A text with what was taken out struck through and what was put in marked. */
  function changesDraw(place, before, after) {
    const plain = document.createElement("div");
    plain.className = "changes";
    plain.dir = "auto";
    for (const [mark, items] of difference(wordsCut(before), wordsCut(after))) {
      const run = items.join("");
      const part = mark === "=" ? document.createTextNode(run) : document.createElement(mark === "-" ? "del" : "ins");
      if (mark !== "=") part.textContent = run;
      plain.append(part);
    }
    place.replaceChildren(plain);
  }

  window.rondo = { ...window.rondo, Editor, changesDraw, htmlShow, textRender };
})();
