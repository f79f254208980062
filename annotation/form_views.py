"""The manager's pages of how each kind of task is asked for, with what the annotator will see."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.desk_views import LIBRARIES, kind_scripts, part_scripts, script_url
from annotation.forms import error_add
from annotation.frame import project_frame
from annotation.kind_forms import KIND_FORMS, flag_rows
from annotation.models import Membership, Task
from annotation.services.task_forms import task_form_save
from annotation.task_forms import PRESETS, form_of
from modelhub.errors import ApplicationError
from modelhub.rendering import markdown_render, words_count

WORDS = {
    Task.Kind.RANKING: _("Answers in order, best first, with ties."),
    Task.Kind.PAIR: _("The better of two answers, and by how much."),
    Task.Kind.RATING: _("Each answer by itself, from 1 to 7, and what is wrong with it."),
    Task.Kind.DEMONSTRATION: _("The ideal answer, written by a person."),
    Task.Kind.EDIT: _("The best answer, made better by a person."),
    Task.Kind.DIALOGUE: _("A talk with live models, of two answers the better one each turn."),
}
PREVIEW_SCRIPTS = (
    *("notices", "courier", "keymap", "typeset", "difference", "reading", "answers"),
    "form_preview",
)
SAMPLE_PROMPT = "Why is the sky blue?"
SAMPLE_ANSWERS = (
    "Air scatters short waves of light far more than long ones: by $1/\\lambda^4$. **Blue** light "
    "has short waves, so it reaches us from all over the sky, and red light does not.",
    "The sky is blue because it mirrors the colour of the sea.",
    "Because of *Rayleigh scattering*. Molecules of air are much smaller than a wave of light.",
)


@require_http_methods(["GET", "HEAD", "POST"])
def project_form(
    request: HttpRequest, project_uid: str, kind: str = Task.Kind.RANKING
) -> HttpResponse:
    """How the project asks for a kind. `?preset=` fills the form in from a paper."""
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    if kind not in KIND_FORMS:
        raise Http404("Not found.")
    data = request.POST if request.method == "POST" else None
    presets = {name: form for name, form in PRESETS.items() if kind == form.KIND}
    now = presets.get(request.GET.get("preset", "")) or form_of(project, kind)
    form = KIND_FORMS[kind](data, initial=KIND_FORMS[kind].initial_of(now))
    if form.is_valid():
        try:
            task_form_save(project=project, kind=kind, settings=form.settings())
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(request, gettext("Kept. It holds from the next task that is shown."))
            return redirect("project_form", project.uid, kind)
    context = project_frame(request, project, "tasks") | {
        "form": form,
        "kind": kind,
        "kinds": Task.Kind.choices,
        "words": WORDS[Task.Kind(kind)],
        "flags": flag_rows(now, data),
        "presets": presets,
        "preview": _preview(project.uid, kind),
        "scripts": [script_url(name) for name in PREVIEW_SCRIPTS],
    }
    status = 400 if form.is_bound and form.errors else 200
    return render(request, "annotation/project_form.html", context, status=status)


def _preview(project_uid: str, kind: str) -> dict[str, Any]:
    """A made-up task, as the annotator's page would be given it."""
    count = {Task.Kind.PAIR: 2, Task.Kind.DIALOGUE: 0}.get(Task.Kind(kind), len(SAMPLE_ANSWERS))
    return {
        "kind": kind,
        "scripts": kind_scripts()[kind],
        "parts": part_scripts(),
        "libraries": {name: static(path) for name, path in LIBRARIES.items()},
        "urls": {"preview": reverse("api_preview", args=[project_uid])},
        "task": {
            "prompt": {"html": markdown_render(SAMPLE_PROMPT)},
            "candidates": [
                {
                    "uid": f"sample{place}",
                    "letter": "ABC"[place],
                    "text": text,
                    "html": markdown_render(text),
                    "words": words_count(text),
                    "tokens": None,
                }
                for place, text in enumerate(SAMPLE_ANSWERS[:count])
            ],
        },
    }
