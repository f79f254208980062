/* Reading side by side: answers as they were written, scrolled together, and copied as plain text. */
(() => {
  "use strict";
  const DELIMITED = { block: ["$$", "$$"], inline: ["$", "$"] };

  /* Cards show their text as it was written, or as it is read. What was drawn is kept for the way back. */
  function sourceShow(card, text, asSource) {
    const place = card.querySelector(".answer-text");
    if (asSource === Boolean(card.drawn)) return;
    if (asSource) {
      card.drawn = [...place.childNodes];
      const plain = document.createElement("pre");
      plain.className = "plain";
      plain.textContent = text;
      place.replaceChildren(plain);
    } else {
      place.replaceChildren(...card.drawn);
      card.drawn = null;
    }
  }

  /* Let texts of different lengths scroll together: each as far along as the one that is moved. */
  function scrollLink(places, signal) {
    let moved = null; // the text under the hand; the others only follow
    let rest = 0;
    for (const place of places) {
      place.addEventListener(
        "scroll",
        () => {
          if (moved && moved !== place) return;
          moved = place;
          clearTimeout(rest);
          rest = setTimeout(() => (moved = null), 120);
          const along = place.scrollTop / Math.max(1, place.scrollHeight - place.clientHeight);
          for (const other of places) if (other !== place) other.scrollTop = along * (other.scrollHeight - other.clientHeight);
        },
        { passive: true, signal },
      );
    }
  }

  /* What is copied is text: no styles, no letters of cards, and mathematics as it was written. */
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    const from = selection.anchorNode;
    const inText = (from instanceof Element ? from : from?.parentElement)?.closest(".prose");
    if (!inText || selection.isCollapsed || event.target.closest?.("textarea, input")) return;
    const box = document.createElement("div");
    box.className = "copied";
    for (let place = 0; place < selection.rangeCount; place += 1) box.append(selection.getRangeAt(place).cloneContents());
    for (const math of box.querySelectorAll(".math[data-shaped]")) {
      const [open, close] = DELIMITED[math.querySelector("math")?.getAttribute("display") === "block" ? "block" : "inline"];
      math.textContent = open + math.title + close;
    }
    for (const head of box.querySelectorAll(".answer-head, button, kbd")) head.remove();
    document.body.append(box);
    event.clipboardData.setData("text/plain", box.innerText.trim());
    box.remove();
    event.preventDefault();
  });

  /* Words as the server counts them (words_count in modelhub/rendering.py): by white space, and each letter of Han and Kana. */
  const LONE = "\\u3005\\u3007\\u3041-\\u3096\\u309d-\\u309f\\u30a1-\\u30fa\\u30fc-\\u30ff\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uff66-\\uff9d\\u{20000}-\\u{3ffff}";
  const LONE_LETTER = new RegExp(`[${LONE}]`, "gu");
  const OTHER_LETTER = /[\p{L}\p{N}_]/u;

  function wordsCount(text) {
    return text.split(/\s+/).filter(Boolean).reduce((sum, piece) => {
      const letters = piece.match(LONE_LETTER)?.length ?? 0;
      return sum + (letters ? letters + piece.split(LONE_LETTER).filter((part) => OTHER_LETTER.test(part)).length : 1);
    }, 0);
  }

  window.rondo = { ...window.rondo, scrollLink, sourceShow, wordsCount };
})();
