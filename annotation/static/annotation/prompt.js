/* What is to be answered: the conversation on the left, and how long reading all of it takes. */
(() => {
  "use strict";
  const { wordsCount } = window.rondo;
  const WORDS_A_MINUTE = 238; // of silent reading (Brysbaert 2019)

  function messagesShow(place, messages) {
    const names = {
      user: gettext("Person"),
      assistant: gettext("Assistant"),
      system: gettext("Instructions to the assistant"),
    };
    place.replaceChildren(
      ...messages.map((message) => {
        const box = document.createElement("div");
        box.className = "message";
        box.dataset.role = message.role;
        const who = document.createElement("h3");
        who.textContent = names[message.role] ?? message.role;
        const text = document.createElement("div");
        text.className = "prose";
        text.dir = "auto";
        text.innerHTML = message.html; // rendered and cleaned by the server
        box.append(who, text);
        return box;
      }),
    );
    place.scrollTop = 0;
  }

  /* Seconds to read a task once: its last message and its answers. */
  function readingSeconds({ prompt, candidates }) {
    const words = candidates.reduce((sum, one) => sum + one.words, wordsCount(prompt.messages.at(-1).text));
    return (words * 60) / WORDS_A_MINUTE;
  }

  window.rondo = { ...window.rondo, messagesShow, readingSeconds };
})();
