/* The page of rules: an answer brings new figures and leaves what stands in the fields alone. */
(() => {
  "use strict";
  const rules = document.getElementById("rules");

  function answersShow(page, wanted) {
    const focused = document.activeElement?.id;
    const opened = [...rules.querySelectorAll("details[id][open]")].map((details) => details.id);
    for (const fresh of page.querySelectorAll(wanted)) document.getElementById(fresh.id)?.replaceWith(fresh);
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    // A button that was replaced under the keyboard.
    if (focused && document.activeElement === document.body) {
      document.getElementById(focused)?.focus({ preventScroll: true });
    }
  }

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    const page = new DOMParser().parseFromString(xhr.response, "text/html");
    if (xhr.status === 200) answersShow(page, "[data-answer]");
    // What was typed is no threshold, or none yet: the figures before it stay.
    else if (xhr.status === 422) answersShow(page, "#refusal");
  });

  rules.addEventListener("submit", (event) => {
    if (event.submitter?.name !== "show") return;
    event.preventDefault();
    htmx.trigger(rules, "show");
  });
})();
