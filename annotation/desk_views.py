"""The annotator's page: one frame for every kind of task, which the page asks for itself."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from annotation import policy
from annotation.desk_keys import DEFAULTS
from annotation.frame import membership_wanted
from annotation.models import Task
from annotation.selectors.key_bindings import key_bindings_of

# What is kept is the English sentence, whichever language it was read in: reasons are counted.
SKIP_REASONS = {
    "It is unclear what is asked": _("It is unclear what is asked"),
    "Something is broken or missing": _("Something is broken or missing"),
    "It is in a language I do not read well": _("It is in a language I do not read well"),
    "Something in it is unsafe or upsetting": _("Something in it is unsafe or upsetting"),
    "It needs knowledge that I do not have": _("It needs knowledge that I do not have"),
    "Another reason": _("Another reason"),
}
# In the order they need one another; a kind's own come when its first task does.
FRAME_SCRIPTS = (
    *("notices", "courier", "keymap", "chips", "stock", "typeset", "difference", "reading"),
    *("answers", "prompt", "guidelines", "care", "frame", "desk", "keyboard"),
)
KIND_SCRIPTS = {
    Task.Kind.RANKING: ("vendor/sortable.js", *("kinds/ranking_board", "kinds/ranking")),
    Task.Kind.PAIR: ("degrees", "kinds/pair"),
    Task.Kind.RATING: ("kinds/rating",),
    Task.Kind.DEMONSTRATION: ("editor", "kinds/demonstration"),
    Task.Kind.EDIT: ("editor", "kinds/edit"),
    Task.Kind.DIALOGUE: ("editor", "degrees", "kinds/dialogue"),
}
# What a kind fetches when it is wanted, by name.
PARTS = {"rewrite": ("editor", "kinds/ranking_rewrite")}
LIBRARIES = {"highlight": "vendor/highlight.js", "katex": "vendor/katex.js"}
CALLS = ("draft", "submit", "skip", "renew", "undo", "question", "report", "answers")
BLANK = "ASSIGNMENT"


@require_safe
def annotate(request: HttpRequest, project_uid: str) -> HttpResponse:
    """The page of every kind of task. A GET hands nothing out."""
    try:
        membership = policy.membership_for(request.user, project_uid)
    except Http404:
        return membership_wanted(request, project_uid)
    project = membership.project
    state = {
        "viewer": membership.uid,
        "project": project.uid,
        "blank_uid": BLANK,
        "urls": {name: reverse(f"api_{name}", args=[BLANK]) for name in CALLS}
        | {
            "next": reverse("api_next", args=[project.uid]),
            "preview": reverse("api_preview", args=[project.uid]),
            "guidelines_read": reverse("api_guidelines_read", args=[project.uid]),
            "keys": reverse("api_desk_keys"),
        },
        "kinds": kind_scripts(),
        "parts": part_scripts(),
        "keys": key_bindings_of(user=membership.user),
        "keys_default": DEFAULTS,
        "libraries": {name: static(path) for name, path in LIBRARIES.items()},
    }
    context = {
        "project": project,
        "state": state,
        "scripts": [script_url(name) for name in FRAME_SCRIPTS],
        "skip_reasons": [{"value": key, "label": label} for key, label in SKIP_REASONS.items()],
    }
    return render(request, "annotation/annotate.html", context)


@require_safe
def rank(request: HttpRequest, project_uid: str) -> HttpResponse:
    """The page's address from when there was one kind of task."""
    policy.project_for(request.user, project_uid)
    return redirect("annotate", project_uid, permanent=True)


def kind_scripts() -> dict[str, list[str]]:
    """Kind → the addresses of its scripts, in order."""
    return {kind: [script_url(name) for name in names] for kind, names in KIND_SCRIPTS.items()}


def part_scripts() -> dict[str, list[str]]:
    """Part of a kind → the addresses of its scripts, in order."""
    return {part: [script_url(name) for name in names] for part, names in PARTS.items()}


def script_url(name: str) -> str:
    return static(name if name.endswith(".js") else f"annotation/{name}.js")
