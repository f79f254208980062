/* The planner: an answer brings new figures; what was typed while it was on its way stays. */
(() => {
  "use strict";
  const form = document.getElementById("mix");
  if (!form) return;
  let sent = new Map(); // field → what the newest question said of it

  const fieldsOf = (root) => [...root.querySelectorAll("input[id]:not([type='hidden']), select[id]")];
  const idsOf = (root) => fieldsOf(root).map((field) => field.id).join(" ");
  const isBox = (field) => field.type === "checkbox";
  const saidBy = (field) => (isBox(field) ? field.checked : field.value);

  function say(field, value) {
    if (isBox(field)) field.checked = value;
    else field.value = value;
  }

  /* The same fields: none of them is replaced, and those that nobody touches say what was understood. */
  function figuresShow(fresh, touched) {
    for (const answer of fresh.querySelectorAll("[data-answer]")) document.getElementById(answer.id)?.replaceWith(answer);
    for (const field of fieldsOf(fresh)) {
      if (!touched.has(field.id)) say(document.getElementById(field.id), saidBy(field));
    }
  }

  /* Other fields: the new ones are given what the old ones have been told since. */
  function fieldsShow(body, fresh, touched) {
    const { id, selectionStart, selectionEnd } = document.activeElement ?? {};
    for (const field of fieldsOf(fresh)) if (touched.has(field.id)) say(field, touched.get(field.id));
    body.replaceWith(fresh);
    htmx.process(fresh);
    const focused = id && document.getElementById(id);
    if (!focused || document.activeElement === focused) return;
    focused.focus({ preventScroll: true });
    if (selectionStart != null) focused.setSelectionRange?.(selectionStart, selectionEnd);
  }

  form.addEventListener("htmx:configRequest", () => {
    sent = new Map(fieldsOf(form).map((field) => [field.id, saidBy(field)]));
  });

  form.addEventListener("htmx:beforeSwap", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.response, "text/html");
    const [body, fresh] = [document.getElementById("mix-body"), page.getElementById("mix-body")];
    if (!fresh) return;
    const isTouched = (field) => field === document.activeElement || saidBy(field) !== sent.get(field.id);
    const touched = new Map(fieldsOf(body).filter(isTouched).map((field) => [field.id, saidBy(field)]));
    if (idsOf(body) === idsOf(fresh)) figuresShow(fresh, touched);
    else fieldsShow(body, fresh, touched);
  });
})();
