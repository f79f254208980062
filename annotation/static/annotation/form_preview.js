/* The set-up page: what the annotator will see, drawn by the very code that draws it for them, anew
   with every change of the form. */
(() => {
  "use strict";
  const { inOrder, typeset } = window.rondo;
  const state = JSON.parse(document.getElementById("preview-state").textContent);
  const form = document.querySelector("[data-kind-form]");
  const page = document.querySelector("[data-preview]");
  const $ = (selector) => page.querySelector(selector);
  let end = new AbortController();

  /* The form's fields as the settings a page is given. */
  function settingsRead() {
    const data = new FormData(form);
    const settings = { rationale: data.get("rationale"), start: data.get("start") };
    for (const box of form.querySelectorAll("input[type=checkbox]")) settings[box.name] = box.checked;
    for (const name of ["turns", "max_turns"]) if (data.get(name)) settings[name] = Number(data.get(name));
    const keys = data.getAll("flag_key");
    settings.flags = data
      .getAll("flag_label")
      .map((label, place) => ({ name: `flag${place}`, label, key: keys[place] }))
      .filter((flag) => flag.label.trim());
    return settings;
  }

  function draw() {
    end.abort();
    end = new AbortController();
    const settings = settingsRead();
    const stage = document.createElement("div");
    stage.className = "desk-stage";
    stage.dataset.stage = state.kind;
    $("[data-stage]").replaceWith(stage);
    const work = new window.rondo.kinds[state.kind]({
      task: state.task,
      form: settings,
      stage,
      page,
      closing: end.signal,
      changed: () => {},
      redraw: () => {},
      typeset: (root) => typeset(root, state.libraries),
      load: (part) => inOrder(state.parts[part]),
      urlOf: () => "",
      previewUrl: state.urls.preview,
    });
    work.take(null);
    $("[data-why]").hidden = settings.rationale === "none";
    $("[data-why-asked]").textContent = settings.rationale === "required" ? gettext("required") : gettext("optional");
    typeset(page, state.libraries);
  }

  $("[data-preview-prompt]").innerHTML = state.task.prompt.html; // rendered and cleaned by the server
  inOrder(state.scripts)
    .then(() => {
      draw();
      form.addEventListener("input", draw);
    });
})();
