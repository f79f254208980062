/* The ranking page: shows a task, turns keys, taps and drags into moves of the board, and sends it. */
(() => {
  "use strict";
  const { Board, DraftKeeper, Outbox, draftsPrune, keyNew, post, serverNow, store } = window.rondo;

  const config = JSON.parse(document.getElementById("rank-state").textContent);
  const page = document.querySelector("[data-rank]");
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const boardView = $("[data-board]");
  const rationale = $("[data-rationale]");
  const outbox = new Outbox(config.viewer);
  const COLUMN_MIN = 216;
  const RENEW_EVERY_MS = 60_000;
  const IDLE_AFTER_MS = 60_000;
  const ATTENTION_MS = 30_000;

  let task = null; // the assignment on show, with its prompt and candidates
  let board = null;
  let keeper = null;
  let focused = "";
  let activeS = 0;
  let leaseUntil = 0;
  let renewedAt = 0;
  let lapsed = false;
  let savedAt = 0;
  let busy = false;
  let lastActive = Date.now();
  let loadRetryMs = 3000;
  let loadTimer = 0;
  let layout = store.read("rondo:layout", "auto");

  /* ------------------------------------------------------------ saying things */

  function say(words) {
    $("[data-say]").textContent = "";
    requestAnimationFrame(() => ($("[data-say]").textContent = words));
  }

  function notice(words, kind = "info") {
    const item = document.createElement("li");
    item.className = "flash";
    item.dataset.kind = kind;
    const text = document.createElement("span");
    text.textContent = words;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button quiet small";
    close.textContent = "Close";
    close.addEventListener("click", () => item.remove());
    item.append(text, close);
    const list = $("[data-notices]");
    for (const old of [...list.children]) if (old.firstChild.textContent === words) old.remove();
    list.append(item);
    while (list.children.length > 3) list.firstChild.remove();
    if (kind === "info") setTimeout(() => item.remove(), 6000);
  }

  function view(name) {
    page.dataset.view = name;
    const working = name === "task";
    $("[data-lease]").hidden = !working;
    $("[data-saved]").hidden = !working || !$("[data-saved-words]").textContent;
    if (!working) document.title = document.title.replace(/^\(.*?\) /, "");
  }

  const urlOf = (name) => config.urls[name].replace(config.placeholder, task.assignment.uid);
  const letterOf = (uid) => task.candidates.find((one) => one.uid === uid).letter;
  const laneName = (lane) =>
    lane === 0 ? "to be placed" : lane === board.unacceptableLane ? "not acceptable" : `lane ${lane} of ${board.size}`;

  function whereabouts(uid) {
    const tied = board.tiedWith(uid).map(letterOf);
    return `Answer ${letterOf(uid)}, ${laneName(board.laneOf(uid))}${tied.length ? `, tied with ${tied.join(" and ")}` : ""}`;
  }

  /* ------------------------------------------------------------ drawing a task */

  const cardOf = (uid) => boardView.querySelector(`[data-uid="${uid}"]`);

  function taskShow(given) {
    keeper?.close();
    task = given;
    const assignment = task.assignment;
    board = new Board(task.candidates.map((one) => one.uid));
    keeper = new DraftKeeper({
      url: urlOf("draft"),
      key: `rondo:draft:${config.viewer}:${assignment.uid}`,
      sequence: assignment.draft_sequence,
      onState: savedShow,
      onReply: draftReply,
    });
    const kept = keeper.local();
    const newerHere = kept && kept.sequence > assignment.draft_sequence;
    const draft = newerHere ? kept.draft : assignment.draft;
    board.fromDraft(draft);
    rationale.value = typeof draft?.rationale === "string" ? draft.rationale : "";
    activeS = Number(draft?.active_s) || 0;
    savedAt = 0;
    lapsed = false;
    $("[data-saved-words]").textContent = "";
    leaseTake(assignment.lease_until);
    progressShow(task.progress);
    guidelineShow(task.guideline);
    messagesShow(task.prompt.messages);
    lanesBuild();
    for (const one of task.candidates) answerBuild(one);
    focused = board.uids[0];
    view("task");
    layoutApply();
    draw({ animate: false });
    scrollTo({ top: 0 });
    cardOf(focused).focus({ preventScroll: true });
    if (newerHere) {
      keeper.keep(draftNow());
      notice("Your unsent work from this device is back.");
    } else if (draft) {
      notice("Your draft is back.");
    }
    say(`New task. ${board.size} answers to rank. ${whereabouts(focused)}.`);
  }

  function messagesShow(messages) {
    const names = { user: "Person", assistant: "Assistant", system: "Instructions to the assistant" };
    $("[data-messages]").replaceChildren(
      ...messages.map((message) => {
        const box = document.createElement("div");
        box.className = "message";
        box.dataset.role = message.role;
        const who = document.createElement("h3");
        who.textContent = names[message.role] ?? message.role;
        const text = document.createElement("div");
        text.className = "prose";
        text.innerHTML = message.html; // rendered and cleaned by the server
        box.append(who, text);
        return box;
      }),
    );
    $("[data-messages]").scrollTop = 0;
  }

  function lanesBuild() {
    const template = $("#lane-template").content;
    const byFinger = matchMedia("(pointer: coarse)").matches;
    boardView.replaceChildren();
    for (let lane = 0; lane <= board.unacceptableLane; lane += 1) {
      const section = template.cloneNode(true).firstElementChild;
      const kind = lane === 0 ? "tray" : lane === board.unacceptableLane ? "unacceptable" : "rank";
      section.dataset.lane = lane;
      section.dataset.kind = kind;
      $(".lane-number", section).textContent = kind === "rank" ? lane : kind === "unacceptable" ? "✕" : "";
      $(".lane-name", section).textContent =
        kind === "tray" ? "To place" : kind === "unacceptable" ? "Not acceptable" : lane === 1 ? "best" : "";
      section.setAttribute(
        "aria-label",
        kind === "rank" ? `Lane ${lane}${lane === 1 ? ", best" : ""}` : $(".lane-name", section).textContent,
      );
      boardView.append(section);
      window.Sortable.create($(".lane-cards", section), {
        group: "lanes",
        animation: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 160,
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
        onStart: () => page.classList.add("dragging"),
        onEnd: dropped,
      });
    }
    $("[data-lane-keys]").textContent = `1–${board.size}`;
  }

  function answerBuild(candidate) {
    const card = $("#answer-template").content.cloneNode(true).firstElementChild;
    const letter = candidate.letter;
    card.dataset.uid = candidate.uid;
    $(".answer-letter", card).textContent = letter;
    $(".answer-words", card).textContent = candidate.words === 1 ? "1 word" : `${candidate.words} words`;
    $(".answer-text", card).innerHTML = candidate.html; // rendered and cleaned by the server
    $('[data-move="up"]', card).setAttribute("aria-label", `${letter}: up one rank`);
    $('[data-move="down"]', card).setAttribute("aria-label", `${letter}: down one rank`);
    const lanes = $(".answer-lanes", card);
    lanes.setAttribute("aria-label", `Lane of answer ${letter}`);
    for (let lane = 1; lane <= board.unacceptableLane; lane += 1) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.place = lane;
      button.textContent = lane === board.unacceptableLane ? "✕" : lane;
      const name = lane === board.unacceptableLane ? "not acceptable" : `lane ${lane}`;
      button.setAttribute("aria-label", `${letter}: ${name}`);
      button.title = name;
      lanes.append(button);
    }
    card.addEventListener("focus", () => focusTake(candidate.uid));
    card.addEventListener("pointerdown", () => focusTake(candidate.uid));
    $(".lane-cards", boardView).append(card);
  }

  /* Put every card where the board says, gliding from where it was. */
  function draw({ animate = true } = {}) {
    const glide = animate && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const cards = new Map(board.uids.map((uid) => [uid, cardOf(uid)]));
    const before = glide && new Map([...cards].map(([uid, card]) => [uid, card.getBoundingClientRect()]));
    const held = document.activeElement;
    for (const [lane, uids] of board.lanes.entries()) {
      const section = boardView.children[lane];
      $(".lane-cards", section).append(...uids.map((uid) => cards.get(uid)));
      section.classList.toggle("vacant", uids.length === 0);
      section.classList.toggle("tied", uids.length > 1 && section.dataset.kind === "rank");
      section.style.flexGrow = uids.length === 0 ? 0 : lane === 0 ? Math.min(uids.length, 2) : 1;
    }
    for (const [uid, card] of cards) {
      const lane = board.laneOf(uid);
      const tied = board.tiedWith(uid).map(letterOf);
      card.setAttribute("aria-label", whereabouts(uid));
      $(".answer-tie", card).textContent = tied.length ? `tied with ${tied.join(", ")}` : "";
      $(".answer-moves", card).hidden = lane === 0 || lane === board.unacceptableLane;
      for (const button of $$("[data-place]", card)) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.place) === lane));
      }
    }
    if (held && held !== document.activeElement && boardView.contains(held)) held.focus({ preventScroll: true });
    focusMark();
    const placed = board.size - board.unplaced().length;
    $("[data-count]").textContent = board.isComplete() ? "All placed" : `${placed} of ${board.size} placed`;
    $('[data-act="submit"]').setAttribute("aria-disabled", String(!board.isComplete()));
    $('[data-act="undo"]').disabled = board.past.length === 0;
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

  function layoutApply() {
    if (!board) return;
    const room = boardView.clientWidth - 76 - (board.size - 1) * 10;
    const columns = layout === "auto" ? innerWidth >= 1000 && room / board.size >= COLUMN_MIN : layout === "columns" && innerWidth >= 1000;
    page.dataset.layout = columns ? "columns" : "rows";
  }

  function layoutToggle() {
    layout = page.dataset.layout === "columns" ? "rows" : "columns";
    store.write("rondo:layout", layout);
    layoutApply();
    focusInView();
    say(`Lanes as ${page.dataset.layout}.`);
  }

  /* ------------------------------------------------------------ focus */

  function focusMark() {
    for (const uid of board.uids) {
      const card = cardOf(uid);
      card.tabIndex = uid === focused ? 0 : -1;
      card.classList.toggle("focused", uid === focused);
    }
  }

  function focusTake(uid) {
    if (focused === uid) return;
    focused = uid;
    focusMark();
  }

  function focusInView() {
    const card = cardOf(focused);
    const box = card.getBoundingClientRect();
    const [top, bottom] = [110, innerHeight - 80];
    if (box.top < top || box.top > bottom - 120) card.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  function focusGo(uid, { speak = true } = {}) {
    focused = uid;
    focusMark();
    cardOf(uid).focus({ preventScroll: true });
    focusInView();
    if (speak) say(`${whereabouts(uid)}.`);
  }

  const focusStep = (by) => {
    const at = board.uids.indexOf(focused);
    focusGo(board.uids[(at + by + board.size) % board.size]);
  };

  /* The nearest answer on the side an arrow points to. */
  function focusToward(key) {
    const middle = (uid) => {
      const box = cardOf(uid).getBoundingClientRect();
      return [box.left + box.width / 2, box.top + Math.min(box.height / 2, 40)];
    };
    const [x0, y0] = middle(focused);
    let best = null;
    for (const uid of board.uids) {
      if (uid === focused) continue;
      const [x, y] = middle(uid);
      const [along, aside] =
        key === "ArrowRight" ? [x - x0, y - y0] : key === "ArrowLeft" ? [x0 - x, y - y0] : key === "ArrowDown" ? [y - y0, x - x0] : [y0 - y, x - x0];
      const distance = along + 2 * Math.abs(aside);
      if (along > 8 && (!best || distance < best.distance)) best = { uid, distance };
    }
    if (best) focusGo(best.uid);
  }

  /* ------------------------------------------------------------ moves */

  function moved(changed, uid = focused) {
    if (!changed) return say(`${whereabouts(uid)}. No change.`);
    draw();
    focusGo(uid);
    keeper.keep(draftNow());
    return undefined;
  }

  function undo() {
    const uid = board.undo();
    if (!uid) return say("Nothing to undo.");
    draw();
    focusGo(uid, { speak: false });
    say(`Undone. ${whereabouts(uid)}.`);
    keeper.keep(draftNow());
    return undefined;
  }

  function dropped(event) {
    page.classList.remove("dragging");
    const uid = event.item.dataset.uid;
    const lane = Number(event.to.closest(".lane").dataset.lane);
    moved(board.place(uid, lane, event.newDraggableIndex), uid);
  }

  const draftNow = () => ({ ...board.toDraft(), rationale: rationale.value, active_s: Math.round(activeS) });

  /* ------------------------------------------------------------ saved, reserved, progress */

  let savedState = "";
  function savedShow(state, message = "") {
    savedState = state;
    if (state === "saved") savedAt = Date.now();
    $("[data-saved]").hidden = page.dataset.view !== "task";
    $("[data-saved]").dataset.kind = state;
    savedWords(message);
    if (state === "refused") notice(`Your draft was not saved: ${message}`, "error");
  }

  function savedWords(message = "") {
    const seconds = Math.round((Date.now() - savedAt) / 1000);
    const words = {
      saving: "Saving…",
      saved: seconds < 2 ? "Saved" : seconds < 90 ? `Saved ${seconds} s ago` : `Saved ${Math.round(seconds / 60)} min ago`,
      offline: "Offline – kept on this device",
      refused: message ? "Not saved" : $("[data-saved-words]").textContent,
    };
    if (savedState) $("[data-saved-words]").textContent = words[savedState];
  }

  function draftReply(reply) {
    if (reply.lease_until) leaseTake(reply.lease_until);
    if (reply.notice) notice(reply.notice, "warning");
    if (reply.state) lapseTake(reply.state);
  }

  function leaseTake(until) {
    leaseUntil = Date.parse(until) || 0;
    renewedAt = Date.now();
    leaseWords();
  }

  function lapseTake(state) {
    if (state === "live") lapsed = false;
    if (state === "expired") lapsed = true;
    leaseWords();
  }

  function leaseWords() {
    const left = Math.max(0, Math.floor((leaseUntil - serverNow()) / 1000));
    const over = lapsed || left === 0;
    $("[data-lease]").dataset.kind = over ? "lapsed" : left < 120 ? "short" : "";
    $("[data-lease-lead]").textContent = over ? "reservation " : "reserved for you ";
    $("[data-lease-words]").textContent = over ? "lapsed" : `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  }

  async function renew() {
    renewedAt = Date.now();
    try {
      const reply = await post(urlOf("renew"));
      if (reply.lease_until) leaseTake(reply.lease_until);
      const before = lapsed;
      lapseTake(reply.state);
      if (!before && lapsed) notice("Your reservation has lapsed. Your work is kept, and you can still send it.", "warning");
    } catch {
      /* The countdown tells the truth by itself; the next try is a minute away. */
    }
  }

  function progressShow({ submitted_today: today, open }) {
    const box = $("[data-progress]");
    box.hidden = false;
    $("progress", box).max = today + open + 1;
    $("progress", box).value = today;
    $("[data-progress-words]").textContent = `${today} of ${today + open + 1}${open < 200 ? "" : "+"}`;
  }

  function guidelineShow(guideline) {
    const box = $("[data-guidelines]");
    if (!guideline) {
      box.textContent = "This project has no guidelines yet.";
    } else {
      box.innerHTML = guideline.html; // rendered and cleaned by the server
      $("#guidelines-title").textContent = `Guidelines, version ${guideline.number}`;
    }
    const read = store.read(`rondo:guidelines:${config.project}`, 0);
    $("[data-guideline-new]").hidden = !guideline || read === guideline.number;
  }

  function guidelinesOpen() {
    $("#guidelines-drawer").showModal();
    if (task?.guideline) store.write(`rondo:guidelines:${config.project}`, task.guideline.number);
    $("[data-guideline-new]").hidden = true;
  }

  /* ------------------------------------------------------------ getting, sending, skipping */

  function taskTake(next) {
    clearTimeout(loadTimer);
    loadRetryMs = 3000;
    if (next) return taskShow(next);
    keeper?.close();
    task = null;
    $("[data-progress]").hidden = true;
    view("finished");
    say("That is everything for now.");
    return undefined;
  }

  /* The task that came with a reply, or else what the queue has. */
  const nextTake = async (next) => taskTake(next ?? (await post(config.urls.next)));

  function trouble(refusal) {
    if (refusal.offline) {
      $("[data-waiting-words]").textContent = outbox.entries().length
        ? "Your ranking is kept on this device and will be sent by itself as soon as the server answers."
        : "The server does not answer. The page tries again by itself.";
      view("waiting");
      say("Offline. Your work is kept on this device.");
      clearTimeout(loadTimer);
      loadTimer = setTimeout(load, loadRetryMs);
      loadRetryMs = Math.min(loadRetryMs * 2, 60_000);
      return;
    }
    const out = refusal.status === 401;
    $("[data-error-title]").textContent = out ? "You are signed out" : "Something went wrong";
    $("[data-error-words]").textContent = out
      ? "Sign in again to go on. What you did is kept on this device and will be sent then."
      : refusal.message;
    $("[data-error-sign-in]").hidden = !out;
    view("error");
  }

  /* What is in the outbox first, then the next task. */
  async function load() {
    if (busy) return;
    busy = true;
    clearTimeout(loadTimer);
    let next;
    try {
      for (const entry of outbox.entries()) {
        try {
          next = sentTake(await outbox.send(entry), entry);
        } catch (refusal) {
          if (refusal.offline || refusal.status === 401) throw refusal;
          notice(`A ranking kept on this device was refused: ${refusal.message}`, "error");
        }
      }
      await nextTake(next);
    } catch (refusal) {
      trouble(refusal);
    } finally {
      busy = false;
    }
  }

  function sentTake(reply, entry) {
    store.remove(entry.draftKey);
    if (reply.submission.notice) notice(reply.submission.notice, "warning");
    return reply.next;
  }

  async function submit() {
    if (busy || page.dataset.view !== "task") return;
    if (!board.isComplete()) {
      const missing = board.unplaced();
      focusGo(missing[0], { speak: false });
      say(`Not sent: ${missing.map(letterOf).join(", ")} still to be placed.`);
      for (const uid of missing) {
        cardOf(uid).classList.remove("wanted");
        requestAnimationFrame(() => cardOf(uid).classList.add("wanted"));
      }
      return;
    }
    const entry = {
      key: keyNew(),
      url: urlOf("submit"),
      draftKey: keeper.key,
      body: {
        tiers: board.tiers(),
        unacceptable: board.unacceptable(),
        rationale: rationale.value,
        active_s: Math.round(activeS * 10) / 10,
      },
    };
    const kept = outbox.put(entry);
    busy = true;
    clearTimeout(keeper.timer);
    page.classList.add("sending");
    $('[data-act="submit"]').disabled = true;
    try {
      await nextTake(sentTake(await outbox.send(entry), entry));
    } catch (refusal) {
      if (refusal.offline && kept) trouble(refusal);
      else if (refusal.status === 401) trouble(refusal);
      else notice(refusal.offline ? "The server does not answer. Try again." : `Not sent: ${refusal.message}`, "error");
    } finally {
      busy = false;
      page.classList.remove("sending");
      $('[data-act="submit"]').disabled = false;
    }
  }

  async function skip(reason) {
    if (busy || !task) return;
    busy = true;
    try {
      const reply = await post(urlOf("skip"), { reason });
      store.remove(keeper.key);
      await nextTake(reply.next);
    } catch (refusal) {
      notice(refusal.offline ? "Offline: the task can be skipped when the server answers." : `Not skipped: ${refusal.message}`, "error");
    } finally {
      busy = false;
    }
  }

  /* ------------------------------------------------------------ what the person does */

  const acts = {
    submit,
    undo,
    skip: () => $("#skip-dialog").showModal(),
    guidelines: guidelinesOpen,
    keys: () => $("#keys-dialog").showModal(),
    again: load,
  };

  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]");
    if (act) return acts[act.dataset.act]();
    const button = event.target.closest(".answer button");
    if (!button) return undefined;
    const uid = button.closest(".answer").dataset.uid;
    focusTake(uid);
    if (button.dataset.place) {
      const lane = Number(button.dataset.place);
      // Pressed again, a lane lets go of the answer.
      return movedKeepingButton(board.place(uid, board.laneOf(uid) === lane ? 0 : lane), uid, button);
    }
    return movedKeepingButton(board.reorder(uid, button.dataset.move === "up" ? -1 : 1), uid, button);
  });

  /* After a click the focus stays on the button that was pressed: it can be pressed again. */
  function movedKeepingButton(changed, uid, button) {
    moved(changed, uid);
    button.focus({ preventScroll: true });
  }

  $("[data-skip-form]").addEventListener("submit", (event) => {
    if (event.submitter?.value !== "skip") return;
    const more = $("[data-skip-more]").value.trim();
    const reason = new FormData(event.target).get("reason");
    skip(more ? `${reason}: ${more}` : reason);
    event.target.reset();
  });
  $("#skip-dialog").addEventListener("keydown", (event) => {
    const radio = $$('[name="reason"]')[Number(event.key) - 1];
    if (radio && event.target !== $("[data-skip-more]")) {
      radio.checked = true;
      radio.focus();
    }
    if (event.key === "Enter" && event.target.name === "reason") {
      event.preventDefault();
      $("[data-skip-form]").requestSubmit($('[value="skip"]'));
    }
  });

  rationale.addEventListener("input", () => keeper?.keep(draftNow()));

  const keysOn = $("[data-keys-on]");
  keysOn.checked = store.read("rondo:keys", true);
  keysOn.addEventListener("change", () => store.write("rondo:keys", keysOn.checked));

  const keyMoves = {
    j: () => focusStep(1),
    k: () => focusStep(-1),
    "[": () => moved(board.shift(focused, -1)),
    "]": () => moved(board.shift(focused, 1)),
    "=": () => moved(board.tie(focused)),
    x: () => moved(board.unacceptableToggle(focused)),
    0: () => moved(board.place(focused, 0)),
    u: undo,
    s: acts.skip,
    g: guidelinesOpen,
    v: layoutToggle,
    w: () => rationale.focus(),
    "?": acts.keys,
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const target = event.target;
    if (target === rationale) {
      if (event.key === "Escape") focusGo(focused);
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
      return;
    }
    if (target.closest("input, textarea, select, [contenteditable]") || event.ctrlKey || event.metaKey) return;
    if (page.dataset.view !== "task") return;
    const arrow = event.key.startsWith("Arrow");
    const onCard = target.closest(".answer") || target === document.body || target === document.getElementById("main");
    if (event.altKey) {
      if (!arrow || !onCard || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
      event.preventDefault();
      moved(board.reorder(focused, event.key === "ArrowUp" ? -1 : 1));
      return;
    }
    if (event.key === "Enter") {
      if (target.closest("button, a, summary")) return;
      event.preventDefault();
      submit();
      return;
    }
    if (arrow) {
      if (!onCard || event.shiftKey) return;
      event.preventDefault();
      focusToward(event.key);
      return;
    }
    if (!keysOn.checked) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (/^[1-9]$/.test(key)) {
      if (Number(key) > board.size) return say(`There are ${board.size} lanes.`);
      event.preventDefault();
      return moved(board.place(focused, Number(key)));
    }
    if (!Object.hasOwn(keyMoves, key)) return undefined;
    event.preventDefault();
    return keyMoves[key]();
  });

  /* ------------------------------------------------------------ the clock */

  for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove", "scroll"]) {
    addEventListener(kind, () => (lastActive = Date.now()), { passive: true, capture: true });
  }

  setInterval(() => {
    if (page.dataset.view !== "task") return;
    const idle = Date.now() - lastActive;
    if (!document.hidden && idle < ATTENTION_MS) activeS += 1;
    leaseWords();
    savedWords();
    if (idle < IDLE_AFTER_MS && Date.now() - renewedAt > RENEW_EVERY_MS) renew();
  }, 1000);

  addEventListener("online", () => {
    if (page.dataset.view === "waiting") load();
    else keeper?.send();
  });
  addEventListener("offline", () => {
    if (page.dataset.view === "task") savedShow("offline");
  });
  addEventListener("resize", layoutApply);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) keeper?.send();
    else if (page.dataset.view === "task") renew();
    else if (page.dataset.view === "finished") load();
  });

  /* Others' work makes new work: look again now and then, while somebody is looking. */
  setInterval(() => {
    if (page.dataset.view === "finished" && !document.hidden && Date.now() - lastActive < 5 * 60_000) load();
  }, 20_000);

  draftsPrune();
  load();
})();
