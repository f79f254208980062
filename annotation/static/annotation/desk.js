/* The desk: shows one task at a time, whatever its kind, keeps its draft, sends it, takes it back.

   A kind is a class in window.rondo.kinds. It is given the desk {task, form, stage, page, closing,
   changed(), redraw(), load(), typeset(), urlOf()}, draws the judgement into `stage`, and answers:

     take(draft)   draw a draft, or null: the beginning     draft()      the judgement in progress
     judgement()   what is sent                             missing()    null, or {words, point()}
     count()       "2 of 4 placed"                          hint()       a contradiction to look at, or ""
     greeting()    what a new task says                     focus()      to where the work is
     key(key, event) → whether it was its key               undo(), canUndo   its own last move
     resized()     the window changed */
(() => {
  "use strict";
  const { Attention, Breaks, Cover, DraftKeeper, Frame, Guidelines, LeaseChip, Outbox, ProgressChip, SavedChip, Stock } = window.rondo;
  const { draftsPrune, fill, keyNew, keymap, messagesShow, notice, offer, offerClose, offerReword, post, readingSeconds, say } = window.rondo;
  const { inOrder, store, typeset } = window.rondo;

  const config = JSON.parse(document.getElementById("desk-state").textContent);
  const page = document.querySelector("[data-desk]");
  const $ = (selector) => document.querySelector(selector);
  const RENEW_EVERY_MS = 60_000;
  const IDLE_AFTER_MS = 60_000;
  const ATTENTION_MS = 30_000;
  const UNDO_MS = 10_000;
  const FRESH_MS = 20_000;
  const LONG_S = 10; // less than this is read at a glance
  const TOO_FAST = 4; // times as fast as people read: nobody has

  const outbox = new Outbox(config.viewer);
  const lease = new LeaseChip();
  const saved = new SavedChip();
  const progress = new ProgressChip();
  const frame = new Frame(page);
  const attention = new Attention();
  const breaks = new Breaks();
  const cover = new Cover(page);
  const guidelines = new Guidelines({ url: config.urls.guidelines_read, typeset: (root) => typeset(root, config.libraries) });
  const urlOf = (name, uid) => config.urls[name].replace(config.blank_uid, uid);
  const stock = new Stock({ next: config.urls.next, urlOf, arrived: (given) => kindLoad(given.task.kind).catch(() => {}) });

  let current = null; // {given, uid, kind, work, keeper, activeS, firstMoveS, changed, end}
  let last = null; // what was sent last: {entry, given, draft, until, done}
  const ratedHere = {}; // uid → what was rated from here; a task fetched ahead does not know of it
  let busy = false; // between two tasks, waiting for the server
  let loadRetryMs = 3000;
  let loadTimer = 0;

  function view(name) {
    frame.show(name);
    if (name !== "task") saved.clear();
  }

  function kindLoad(kind) {
    store.write("rondo:kind", kind);
    return inOrder(config.kinds[kind] ?? []);
  }

  /* ------------------------------------------------------------ a task */

  async function taskShow({ given, draft = null, at = Date.now() }) {
    const { assignment, task } = given;
    const { uid } = assignment;
    stock.busyWith.add(uid); // before anything is waited for: a reply may bring the same one again
    await kindLoad(task.kind);
    currentClose();
    const end = new AbortController();
    const keeper = new DraftKeeper({
      url: urlOf("draft", uid),
      key: `rondo:draft:${config.viewer}:${uid}`,
      sequence: assignment.draft_sequence,
      onState: savedTake,
      onReply: draftReply,
    });
    const kept = keeper.local();
    const newerHere = !draft && kept && kept.sequence > assignment.draft_sequence;
    const content = draft ?? (newerHere ? kept.draft : assignment.draft);
    const stage = document.createElement("div");
    stage.className = "desk-stage";
    stage.dataset.stage = task.kind;
    $("[data-stage]").replaceWith(stage);
    page.dataset.kind = task.kind;
    delete page.dataset.layout;
    current = { given, uid, kind: task.kind, keeper, end, form: given.form ?? {}, changed: false };
    current.activeS = Number(content?.active_s) || 0;
    current.firstMoveS = typeof content?.first_move_s === "number" ? content.first_move_s : null;
    current.toReadS = readingSeconds(given);
    given.rated = { ...given.rated, ...ratedHere };
    current.work = new window.rondo.kinds[task.kind]({
      task: given,
      form: current.form,
      stage,
      page,
      closing: end.signal,
      changed,
      redraw,
      typeset: (root) => typeset(root, config.libraries),
      load: (part) => inOrder(config.parts[part]),
      urlOf: (name) => urlOf(name, uid),
      previewUrl: config.urls.preview,
    });
    saved.clear();
    lease.lapsed = false;
    lease.take(assignment.lease_until);
    progress.take(given.progress);
    guidelines.take(given.guideline);
    messagesShow($("[data-messages]"), given.prompt.messages);
    answerShow(given.question);
    sentBackShow(given.sent_back);
    frame.rationaleTake(current.form.rationale ?? "optional", content?.rationale);
    frame.keysTake(task.kind);
    $("[data-rewrite-tool]").hidden = !current.work.mayRewrite;
    view("task");
    current.work.take(content);
    redraw();
    scrollTo({ top: 0 });
    cover.take(task.is_sensitive && !content);
    if (!cover.isOn) current.work.focus();
    typeset($("[data-for='task']"), config.libraries);
    if (draft) keeper.keep(draftNow());
    else if (newerHere) {
      keeper.keep(draftNow());
      notice(gettext("Your unsent work from this device is back."));
    } else if (hasDraft(content) && !given.sent_back) notice(gettext("Your draft is back."));
    const back = given.sent_back ? ` ${sentBackWords(given.sent_back)} ${given.sent_back.reason}` : "";
    say(`${gettext("New task.")}${back} ${current.work.greeting()}`);
    if (Date.now() - at > FRESH_MS) renew({ waited: true });
  }

  /* What a reviewer answered, before the work goes on. */
  function answerShow(question) {
    $("[data-question-answered]").hidden = !question;
    $("[data-question-text]").textContent = question?.text ?? "";
    $("[data-question-answer]").textContent = question?.answer ?? "";
  }

  /* Why what was sent is here again, until it is sent anew. */
  const sentBackWords = ({ by }) => fill(gettext("%(person)s sent this back to you:"), { person: by });

  function sentBackShow(back) {
    $("[data-sent-back]").hidden = !back;
    $("[data-sent-back-by]").textContent = back ? sentBackWords(back) : "";
    $("[data-sent-back-reason]").textContent = back?.reason ?? "";
  }

  /* A draft that holds a move of the annotator's, not the page's own first state alone. */
  const hasDraft = (content) => Boolean(content) && (content.first_move_s !== null || Boolean(content.rationale));

  function currentClose() {
    if (!current) return;
    current.keeper.close();
    current.end.abort();
    current = null;
  }

  /* ------------------------------------------------------------ the work changes */

  const draftNow = () => ({
    ...current.work.draft(),
    ...frame.rationale,
    active_s: Math.round(current.activeS),
    first_move_s: current.firstMoveS,
  });

  /* The judgement changed: the draft is kept, and the next task fetched while this one is done. */
  function changed() {
    if (!current) return;
    current.changed = true;
    current.firstMoveS ??= current.activeS;
    current.keeper.keep(draftNow());
    stock.ahead(current.uid);
    redraw();
  }

  function redraw() {
    if (!current) return;
    frame.foot({ count: current.work.count(), complete: !missing(), canUndo: current.work.canUndo });
    frame.hint(current.work.hint() || paceHint());
  }

  /* A first choice that came before anybody could have read is pointed at, and stands. */
  function paceHint() {
    const { firstMoveS, toReadS, kind } = current;
    const chosen = kind === "ranking" || kind === "pair" || kind === "rating";
    if (!chosen || firstMoveS === null || toReadS < LONG_S || firstMoveS * TOO_FAST >= toReadS) return "";
    return fill(gettext("Your first choice came after %(first)s s; to read it all takes about %(all)s s."), {
      first: Math.round(firstMoveS),
      all: Math.round(toReadS),
    });
  }

  function missing() {
    const found = current.work.missing();
    if (found || !frame.rationaleLacks) return found;
    return { words: gettext("Not sent: say why."), point: () => frame.rationaleFocus() };
  }

  function undo() {
    if (current?.work.canUndo && frame.view === "task") return current.work.undo();
    if (last) return takeBack();
    return say(gettext("Nothing to undo."));
  }

  /* ------------------------------------------------------------ saved, reserved */

  function savedTake(state, message = "") {
    if (frame.view === "task") saved.take(state);
    if (state === "refused") notice(fill(gettext("Your draft was not saved: %(why)s"), { why: message }), "error");
  }

  function draftReply(reply) {
    if (reply.lease_until) lease.take(reply.lease_until);
    if (reply.notice) notice(reply.notice, "warning");
    if (reply.state) lease.takeState(reply.state);
  }

  async function renew({ waited = false } = {}) {
    const held = current;
    if (!held) return;
    lease.renewedAt = Date.now();
    stock.renew();
    try {
      const reply = await post(urlOf("renew", held.uid));
      if (held !== current) return;
      if (reply.lease_until) lease.take(reply.lease_until);
      if (!lease.takeState(reply.state)) return;
      if (waited && !held.changed) {
        notice(gettext("That task went to somebody else while it waited. Here is another."));
        currentClose();
        load();
      } else notice(gettext("Your reservation has lapsed. Your work is kept, and you can still send it."), "warning");
    } catch {
      /* The countdown tells the truth by itself; the next try is a minute away. */
    }
  }

  /* ------------------------------------------------------------ getting the next */

  async function taskTake(item) {
    clearTimeout(loadTimer);
    loadRetryMs = 3000;
    if (item) return taskShow(item);
    currentClose();
    $("[data-progress]").hidden = true;
    view("finished");
    say(gettext("That is everything for now."));
    return undefined;
  }

  /* What waits here, or else what the queue has. */
  async function nextTake() {
    const waiting = stock.shift();
    if (waiting) return taskTake(waiting);
    stock.busyWith = new Set(outbox.entries().map((entry) => entry.uid));
    stock.asked = "";
    const given = await post(config.urls.next);
    return taskTake(given && { given });
  }

  function trouble(refusal) {
    if (refusal.offline) {
      currentClose();
      saved.clear();
      const answered = refusal.status > 0;
      frame.showWaiting({ hasWork: outbox.entries().length > 0, answered });
      say(answered ? gettext("The server is not ready. The page tries again by itself.") : gettext("Offline. Your work is kept on this device."));
      retryLater(load);
      return;
    }
    currentClose();
    saved.clear();
    frame.showError(refusal);
  }

  function retryLater(act) {
    clearTimeout(loadTimer);
    loadTimer = setTimeout(act, loadRetryMs);
    loadRetryMs = Math.min(loadRetryMs * 2, 60_000);
  }

  /* What is in the outbox first, then the next task. */
  async function load() {
    if (busy) return;
    busy = true;
    clearTimeout(loadTimer);
    try {
      await outboxSend();
      await nextTake();
    } catch (refusal) {
      trouble(refusal);
    } finally {
      busy = false;
    }
  }

  /* ------------------------------------------------------------ sending */

  let sending = Promise.resolve();

  /* Send what is in the outbox, in order, one at a time. Rejects at the first that has to wait. */
  function outboxSend() {
    const turn = async () => {
      for (const entry of outbox.entries()) {
        try {
          sentTake(await outbox.send(entry), entry);
        } catch (refusal) {
          if (refusal.offline || refusal.status === 401) throw refusal;
          refusedTake(refusal, entry);
        }
      }
    };
    sending = sending.catch(() => {}).then(turn);
    return sending;
  }

  function sentTake(reply, entry) {
    store.remove(entry.draftKey);
    if (last?.entry.key === entry.key) last.uid = reply.submission.uid;
    if (reply.submission.notice) notice(reply.submission.notice, "warning");
    stock.add(reply.next);
  }

  /* The server will not have it: the person gets it back as they left it. */
  function refusedTake(refusal, entry) {
    const words = fill(gettext("Not sent: %(why)s"), { why: refusal.message });
    notice(words, "error");
    if (last?.entry.key !== entry.key) return;
    const { given, draft } = last;
    lastForget();
    progress.sent(-1);
    comeBack(given, draft);
  }

  async function submit() {
    if (busy || frame.view !== "task" || cover.isOn) return;
    const lack = missing();
    if (lack) {
      lack.point?.();
      say(lack.words);
      frame.hint(lack.words);
      return;
    }
    const { given, uid, keeper } = current;
    const entry = {
      key: keyNew(),
      uid,
      url: urlOf("submit", uid),
      draftKey: keeper.key,
      body: {
        ...current.work.judgement(),
        ...frame.rationale,
        active_s: current.activeS,
        first_move_s: current.firstMoveS,
      },
    };
    const draft = draftNow();
    for (const [one, { overall }] of Object.entries(entry.body.ratings ?? {})) ratedHere[one] = overall;
    if (!outbox.put(entry)) return unkept();
    busy = true;
    keeper.close();
    last = { entry, given, draft };
    const mine = last;
    const sentNow = outboxSend();
    mine.done = sentNow.catch(() => {});
    progress.sent(1);
    const sentWords = navigator.onLine ? gettext("Sent.") : keptWords();
    offer({ words: sentWords, actWords: gettext("Undo"), key: keymap.cap("undo"), ms: UNDO_MS, act: takeBack });
    setTimeout(() => last === mine && lastForget(), UNDO_MS);
    page.classList.add("sending");
    try {
      // What was fetched ahead, if it came; the server's answer brings one otherwise.
      const ready = stock.shift() ?? (await stock.settled());
      if (ready) {
        await taskTake(ready);
        sentNow.catch(behindTrouble);
      } else {
        await sentNow;
        if (last === mine || !current || current.uid === uid) await nextTake();
      }
    } catch (refusal) {
      trouble(refusal);
    } finally {
      busy = false;
      page.classList.remove("sending");
    }
  }

  const keptWords = () => gettext("No connection: kept on this device, to be sent when there is one.");

  /* The browser keeps nothing for us (a full or closed store): wait for the answer, and say so. */
  async function unkept() {
    notice(gettext("This browser keeps nothing for this page. Stay until it says that your work is sent."), "warning");
    const { work, uid, keeper } = current;
    busy = true;
    try {
      const reply = await post(urlOf("submit", uid), { ...work.judgement(), ...frame.rationale, active_s: current.activeS, first_move_s: current.firstMoveS }, keyNew());
      keeper.close();
      stock.add(reply.next);
      await nextTake();
    } catch (refusal) {
      notice(refusal.offline ? gettext("The server does not answer. Try again.") : fill(gettext("Not sent: %(why)s"), { why: refusal.message }), "error");
    } finally {
      busy = false;
    }
  }

  /* A submission failed while the next task was already on show. */
  function behindTrouble(refusal) {
    if (refusal.status === 401) return trouble(refusal);
    if (last) offerReword(keptWords());
    savedTake("offline");
    return retryLater(() => outboxSend().then(behindSettled).catch(behindTrouble));
  }

  function behindSettled() {
    loadRetryMs = 3000;
    if (saved.state === "offline") savedTake("saved");
  }

  /* ------------------------------------------------------------ taking back */

  function lastForget() {
    last = null;
    offerClose();
  }

  /* Undo the last submission: it comes back as it was, and what is on show waits behind it. */
  async function takeBack() {
    const mine = last;
    if (!mine || busy) return;
    busy = true;
    lastForget();
    try {
      if (!navigator.onLine && outbox.entries().some((one) => one.key === mine.entry.key)) {
        outbox.drop(mine.entry);
        progress.sent(-1);
        await comeBack(mine.given, mine.draft);
      } else {
        await mine.done;
        if (outbox.entries().some((one) => one.key === mine.entry.key)) {
          outbox.drop(mine.entry); // it never got through
          await comeBack(mine.given, mine.draft);
        } else await comeBack(await post(urlOf("undo", mine.entry.uid)), mine.draft);
        progress.sent(-1);
      }
      say(gettext("Taken back. It is as you left it."));
    } catch (refusal) {
      notice(
        refusal.offline ? gettext("Offline: what was sent can be taken back when the server answers.") : refusal.message || gettext("It is too late to take it back."),
        "warning",
      );
    } finally {
      busy = false;
    }
  }

  function comeBack(given, draft) {
    if (current && current.uid !== given.assignment.uid) {
      const { given: waiting, keeper, uid } = current;
      const begun = current.changed ? draftNow() : null;
      if (begun) keeper.keep(begun);
      keeper.send();
      stock.busyWith.delete(uid);
      stock.add(waiting, { first: true, draft: begun });
    }
    return taskShow({ given, draft });
  }

  /* ------------------------------------------------------------ skipping, asking */

  async function skip(reason) {
    await leave("skip", { reason }, gettext("Offline: the task can be skipped when the server answers."), gettext("Not skipped: %(why)s"));
  }

  async function ask(text) {
    current.keeper.keep(draftNow());
    await current.keeper.send();
    const left = await leave("question", { text }, gettext("Offline: a question can be asked when the server answers."), gettext("Not asked: %(why)s"));
    if (left) notice(gettext("Asked. The task waits for the answer, with your work; you will be told."));
  }

  async function report(text) {
    try {
      await post(urlOf("report", current.uid), { text });
      notice(gettext("Reported. You may finish the task, or skip it."));
    } catch (refusal) {
      notice(refusal.offline ? gettext("Offline: a task can be reported when the server answers.") : fill(gettext("Not reported: %(why)s"), { why: refusal.message }), "error");
    }
  }

  function uncover() {
    cover.lift();
    current?.work.focus();
  }

  /* Leave the task on show by a request that answers with the next. */
  async function leave(name, body, offlineWords, refusedWords) {
    if (busy || !current) return false;
    busy = true;
    const { keeper, uid } = current;
    try {
      const reply = await post(urlOf(name, uid), body);
      if (name === "skip") store.remove(keeper.key);
      stock.add(reply.next);
      await nextTake();
      return true;
    } catch (refusal) {
      if (current) notice(refusal.offline ? offlineWords : fill(refusedWords, { why: refusal.message }), "error");
      else trouble(refusal);
      return false;
    } finally {
      busy = false;
    }
  }

  /* ------------------------------------------------------------ what the person does */

  const acts = {
    submit,
    undo,
    "take-back": () => {}, // the offer's button has its own hand
    skip: () => $("#skip-dialog").showModal(),
    question: () => $("#question-dialog").showModal(),
    report: () => $("#report-dialog").showModal(),
    guidelines: () => guidelines.open(),
    uncover,
    keys: () => $("#keys-dialog").showModal(),
    again: load,
  };

  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]");
    if (act) acts[act.dataset.act]?.();
  });

  frame.area.addEventListener("input", changed);

  window.rondo = {
    ...window.rondo,
    desk: {
      acts,
      ask,
      report,
      skip,
      toRationale: () => frame.rationaleFocus(),
      get work() {
        return frame.view === "task" && !cover.isOn ? current?.work : null;
      },
    },
  };

  /* ------------------------------------------------------------ the clock */

  setInterval(() => {
    if (frame.view !== "task" || !current) return;
    const active = !document.hidden && attention.within(ATTENTION_MS);
    if (active) current.activeS += 1;
    breaks.tick(active);
    lease.draw();
    saved.draw();
    if (attention.within(IDLE_AFTER_MS) && Date.now() - lease.renewedAt > RENEW_EVERY_MS) renew();
  }, 1000);

  addEventListener("online", () => {
    loadRetryMs = 3000;
    if (frame.view === "waiting") load();
    else {
      current?.keeper.send();
      if (outbox.entries().length) outboxSend().then(behindSettled).catch(behindTrouble);
    }
  });
  addEventListener("offline", () => savedTake("offline"));
  addEventListener("resize", () => current?.work.resized?.());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) current?.keeper.send();
    else if (frame.view === "task") renew();
    else if (frame.view === "finished") load();
  });

  /* Others' work makes new work: look again now and then, while somebody is looking. */
  setInterval(() => {
    if (frame.view === "finished" && !document.hidden && attention.within(5 * 60_000)) load();
  }, 20_000);

  draftsPrune();
  kindLoad(store.read("rondo:kind", "")).catch(() => {});
  load();
})();
