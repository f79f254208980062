/* Saying things: to a screen reader, in a line that goes away, and with something that can be done. */
(() => {
  "use strict";
  const $ = (selector) => document.querySelector(selector);

  /* For those who listen: what just changed, in a few words. */
  function say(words) {
    const place = $("[data-say]");
    place.textContent = "";
    requestAnimationFrame(() => (place.textContent = words));
  }

  function buttonMake(words, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button quiet small";
    button.textContent = words;
    button.addEventListener("click", act);
    return button;
  }

  /* A line in the corner. What only informs goes by itself; the rest waits to be closed. */
  function notice(words, kind = "info") {
    const item = document.createElement("li");
    item.className = "flash";
    item.dataset.kind = kind;
    const text = document.createElement("span");
    text.textContent = words;
    item.append(text, buttonMake(gettext("Close"), () => item.remove()));
    const list = $("[data-notices]");
    for (const old of [...list.children]) if (old.firstChild.textContent === words) old.remove();
    list.append(item);
    while (list.children.length > 3) list.firstChild.remove();
    if (kind === "info") setTimeout(() => item.remove(), 6000);
  }

  /* "Sent", and for `ms` a way back. Only the last one stands. */
  function offer({ words, actWords, key, ms, act }) {
    const place = $("[data-offer]");
    const text = document.createElement("span");
    text.textContent = words;
    const button = buttonMake(actWords, act);
    button.dataset.act = "take-back";
    const cap = document.createElement("kbd");
    cap.textContent = key;
    cap.setAttribute("aria-hidden", "true");
    button.append(" ", cap);
    const clock = document.createElement("span");
    clock.className = "offer-clock";
    clock.setAttribute("aria-hidden", "true");
    place.replaceChildren(text, button, clock);
    place.hidden = false;
    // The line runs out with the time there is.
    clock.animate([{ scale: "1 1" }, { scale: "0 1" }], { duration: ms, fill: "forwards" });
    clearTimeout(offer.timer);
    offer.timer = setTimeout(offerClose, ms);
  }

  /* It turned out otherwise than the offer said; what can be done stays. */
  function offerReword(words) {
    const text = $("[data-offer]").firstChild;
    if (text) text.textContent = words;
  }

  function offerClose() {
    clearTimeout(offer.timer);
    const place = $("[data-offer]");
    if (place.contains(document.activeElement)) $("#main").focus({ preventScroll: true });
    place.hidden = true;
    place.replaceChildren();
  }

  /* "%(n)s words" with {n: 3}. */
  const fill = (words, values) => interpolate(words, values, true);

  window.rondo = { ...window.rondo, fill, notice, offer, offerClose, offerReword, say };
})();
