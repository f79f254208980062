/* The playground: a token that is pointed at or moved onto shows what else could have stood there. */
(() => {
  "use strict";
  let at = null; // {cell, index} of the token last shown: kept when answers are drawn anew

  const shown = (share) => (share >= 0.0995 ? `${Math.round(100 * share)} %` : share >= 0.00095 ? `${(100 * share).toFixed(1)} %` : share > 0 ? "< 0.1 %" : "–");
  /* What cannot be seen by itself is named. */
  const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ /, "␣");

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function rowOf(text, p, q, isTaken) {
    const row = element("tr", isTaken ? "taken" : "");
    const bar = element("td", "bar");
    const length = element("span");
    length.style.inlineSize = `${Math.max(0.5, 100 * p)}%`;
    bar.append(length);
    row.append(element("td", "word", visible(text)), bar, element("td", "figure", shown(p)), element("td", `figure${q > 0 ? "" : " left-out"}`, shown(q)));
    return row;
  }

  function show(token, isChosen = true) {
    const cell = token.closest(".cell");
    const panel = cell.querySelector(".others");
    const tokens = [...cell.querySelectorAll(".token")];
    for (const one of tokens) {
      one.classList.toggle("shown", one === token);
      one.tabIndex = one === token ? 0 : -1;
      one.removeAttribute("aria-describedby");
    }
    token.setAttribute("aria-describedby", panel.id);
    if (isChosen) at = { cell: cell.id, index: tokens.indexOf(token) };
    const others = JSON.parse(token.dataset.others);
    const table = element("table");
    const head = element("tr");
    for (const [word, className] of [[panel.dataset.wordToken, ""], ["", "bar"], [panel.dataset.wordModel, "figure"], [panel.dataset.wordDrawn, "figure"]]) {
      const cellOf = element(word ? "th" : "td", className, word);
      if (word) cellOf.scope = "col";
      head.append(cellOf);
    }
    const header = element("thead");
    header.append(head);
    const body = element("tbody");
    const p = Number(token.dataset.p), q = Number(token.dataset.q);
    let isListed = false;
    for (const [text, ofModel, ofDraw] of others) {
      const isTaken = !isListed && visible(text) === visible(token.textContent) && Math.abs(ofModel - p) < 1e-9;
      isListed ||= isTaken;
      body.append(rowOf(text, ofModel, ofDraw, isTaken));
    }
    if (!isListed) body.append(rowOf(token.textContent, p, q, true));
    table.append(header, body);
    panel.replaceChildren(table);
  }

  /* Before anybody points at one: each answer's greatest surprise. */
  function surprisesShow() {
    for (const cell of document.querySelectorAll(".cell")) {
      const tokens = [...cell.querySelectorAll(".tokens .token:not(.over)")];
      if (!tokens.length || cell.querySelector(".shown")) continue;
      show(tokens.reduce((least, one) => (Number(one.dataset.p) < Number(least.dataset.p) ? one : least)), false);
    }
  }

  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest?.(".tokens .token");
    if (token && event.pointerType === "mouse") show(token);
  });
  document.addEventListener("click", (event) => {
    const token = event.target.closest?.(".tokens .token");
    if (token) show(token);
  });
  document.addEventListener("focusin", (event) => {
    const token = event.target.closest?.(".tokens .token");
    if (token) show(token);
  });
  document.addEventListener("keydown", (event) => {
    const token = event.target.closest?.(".tokens .token");
    if (token) {
      const tokens = [...token.parentElement.children];
      const here = tokens.indexOf(token);
      const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tokens.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      tokens[Math.min(Math.max(to, 0), tokens.length - 1)].focus();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.target.closest(".play-form")?.requestSubmit();
    }
  });

  /* Answers drawn anew while they are written: the token that was looked at stays so. */
  let hadFocus = false;
  document.addEventListener("htmx:beforeSwap", () => { hadFocus = Boolean(document.activeElement?.closest(".tokens")); });
  document.addEventListener("htmx:afterSwap", () => {
    const token = at && document.getElementById(at.cell)?.querySelectorAll(".token")[at.index];
    if (token && hadFocus) token.focus({ preventScroll: true });
    else if (token) show(token);
    surprisesShow();
  });
  surprisesShow();

  /* Only what the chosen layout reads is asked for. */
  const form = document.querySelector(".play-form");
  function layoutShow() {
    const chosen = form.querySelector("[name=layout]:checked")?.value;
    for (const part of form.querySelectorAll("[data-layout]")) part.hidden = part.dataset.layout !== chosen;
  }
  if (form) {
    form.addEventListener("change", layoutShow);
    layoutShow();
  }
})();
