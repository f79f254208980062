/* Carries work to the server and loses none of it: requests, drafts, and the outbox.

   A draft is kept in this browser at once and sent within about a second. A submission is put in the
   outbox, under a key of its own, before it is sent, and leaves it when the server has answered:
   however often it is sent, it counts once. */
(() => {
  "use strict";

  const TIMEOUT_MS = 20_000;

  /* What a request came to. `offline`: no answer, or one that says "later"; try again. */
  class Refusal extends Error {
    constructor(message, { status = 0, offline = false } = {}) {
      super(message);
      this.status = status;
      this.offline = offline;
    }
  }

  const cookie = (name) => document.cookie.match(new RegExp(`(?:^|; )${name}=([^;]+)`))?.[1] ?? "";

  let clockSkewMs = 0;
  /* The server's time, by the Date header of its last answer. */
  const serverNow = () => Date.now() + clockSkewMs;

  const headers = (accept, key = "") => ({
    "Content-Type": "application/json",
    Accept: accept,
    "X-CSRFToken": cookie("csrftoken"),
    ...(key && { "Idempotency-Key": key }),
  });

  /* Ask for server-sent events; `heard(name, data)` gets each as it comes. Rejects with a Refusal. */
  async function listen(url, body, heard, signal) {
    let response;
    try {
      response = await fetch(url, {
        method: "POST",
        headers: headers("text/event-stream"),
        body: JSON.stringify(body),
        signal,
        redirect: "manual",
      });
    } catch {
      throw new Refusal(gettext("No answer from the server."), { offline: true });
    }
    if (!response.ok || response.type === "opaqueredirect") throw await refusalOf(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const name = event.match(/^event: (.*)$/m)?.[1] ?? "message";
          const data = event.match(/^data: (.*)$/m)?.[1];
          if (data) heard(name, JSON.parse(data));
        }
      }
    } catch {
      throw new Refusal(gettext("The connection broke off."), { offline: true });
    }
  }

  async function refusalOf(response) {
    let reply = {};
    try {
      reply = await response.json();
    } catch {
      /* Not JSON: a proxy's page, or the sign-in page. */
    }
    const signedOut = response.type === "opaqueredirect" || response.status === 401 || response.status === 403;
    const words = reply.message || interpolate(gettext("The server answered %s."), [response.status]);
    return new Refusal(signedOut ? gettext("You are signed out.") : words, {
      status: signedOut ? 401 : response.status,
      offline: response.status >= 500 || response.status === 429 || response.status === 408,
    });
  }

  const post = (url, body = {}, key = "") => send("POST", url, body, key);
  const put = (url, body) => send("PUT", url, body, "");

  async function send(method, url, body, key) {
    let response;
    try {
      response = await fetch(url, {
        method,
        headers: headers("application/json", key),
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
        redirect: "manual",
      });
    } catch {
      throw new Refusal(gettext("No answer from the server."), { offline: true });
    }
    const date = Date.parse(response.headers.get("Date") ?? "");
    if (date) clockSkewMs = date - Date.now();
    if (response.status === 204) return null;
    if (!response.ok || response.type === "opaqueredirect") throw await refusalOf(response);
    try {
      return await response.json();
    } catch {
      throw new Refusal(gettext("No answer from the server."), { offline: true });
    }
  }

  const store = {
    read(key, otherwise) {
      try {
        return JSON.parse(localStorage.getItem(key)) ?? otherwise;
      } catch {
        return otherwise;
      }
    },
    write(key, value) {
      try {
        localStorage.setItem(key, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
    remove(key) {
      try {
        localStorage.removeItem(key);
      } catch {
        /* Nothing was kept, nothing is to be removed. */
      }
    },
  };

  /* Drafts of tasks that never came back: a fortnight is kept. */
  function draftsPrune() {
    const oldest = Date.now() - 14 * 24 * 3600_000;
    try {
      for (const key of Object.keys(localStorage)) {
        if (key.startsWith("rondo:draft:") && !(store.read(key, {}).at > oldest)) store.remove(key);
      }
    } catch {
      /* Storage is closed to us. */
    }
  }

  /* One assignment's draft. `onState("saving" | "saved" | "offline" | "refused", message)`. */
  class DraftKeeper {
    constructor({ url, key, sequence, onState, onReply }) {
      Object.assign(this, { url, key, onState, onReply });
      this.sequence = Math.max(sequence, this.local()?.sequence ?? 0);
      this.pending = null;
      this.timer = 0;
      this.sending = false;
      this.closed = false;
      this.retryMs = 2000;
    }

    local() {
      return store.read(this.key, null);
    }

    keep(draft) {
      this.sequence += 1;
      this.pending = { draft, sequence: this.sequence, at: Date.now() };
      store.write(this.key, this.pending);
      this.onState("saving");
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.send(), 700);
    }

    async send() {
      if (this.closed || this.sending || !this.pending) return;
      clearTimeout(this.timer);
      const sent = this.pending;
      this.sending = true;
      try {
        const reply = await post(this.url, { draft: sent.draft, sequence: sent.sequence });
        if (this.closed) return;
        this.retryMs = 2000;
        if (this.pending === sent) this.pending = null;
        if (reply.sequence > this.sequence) this.sequence = reply.sequence;
        this.onState("saved");
        this.onReply(reply);
      } catch (refusal) {
        if (this.closed) return;
        if (refusal.offline) {
          this.onState("offline");
          this.timer = setTimeout(() => this.send(), this.retryMs);
          this.retryMs = Math.min(this.retryMs * 2, 30_000);
        } else {
          this.pending = null;
          this.onState("refused", refusal.message);
        }
      } finally {
        this.sending = false;
        if (this.pending && this.pending !== sent && !this.closed) this.timer = setTimeout(() => this.send(), 300);
      }
    }

    /* Send nothing more. What is kept in this browser stays, until `store.remove(key)`. */
    close() {
      this.closed = true;
      clearTimeout(this.timer);
    }
  }

  /* Submissions on their way. One viewer's entries are invisible to the next person at this machine. */
  class Outbox {
    constructor(viewer) {
      this.key = `rondo:outbox:${viewer}`;
    }

    entries() {
      return store.read(this.key, []);
    }

    put(entry) {
      return store.write(this.key, [...this.entries().filter((one) => one.url !== entry.url), entry]);
    }

    drop(entry) {
      store.write(this.key, this.entries().filter((one) => one.key !== entry.key));
    }

    /* Sends one entry; returns the server's reply. What the server refuses for good is dropped too. */
    async send(entry) {
      try {
        const reply = await post(entry.url, entry.body, entry.key);
        this.drop(entry);
        return reply;
      } catch (refusal) {
        if (!refusal.offline && refusal.status !== 401) this.drop(entry);
        throw refusal;
      }
    }
  }

  const keyNew = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  window.rondo = { ...window.rondo, DraftKeeper, Outbox, draftsPrune, keyNew, listen, post, put, serverNow, store };
})();
