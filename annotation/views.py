"""Pages of projects. No rule is made here: policy admits, selectors read, services write."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation import exports, overviews, policy
from annotation.forms import (
    FreezeForm,
    GuidelineForm,
    PersonForm,
    ProjectForm,
    PromptsForm,
    RankingsForm,
    RoleForm,
    error_add,
)
from annotation.frame import project_frame
from annotation.layouts import LAYOUTS, layouts_of
from annotation.models import Membership, PreferenceDataset, Project, Split, Task
from annotation.selectors import annotator_progress
from annotation.selectors.weights import annotator_weights
from annotation.services.datasets import preference_dataset_freeze, preference_dataset_import
from annotation.services.projects import (
    guideline_publish,
    membership_remove,
    membership_role_change,
    person_add,
    person_link_renew,
    project_create,
)
from annotation.services.prompts import prompts_import
from modelhub.errors import ApplicationError
from modelhub.rendering import markdown_render, messages_render
from modelhub.serializers import user_of

MANAGER = Membership.Role.MANAGER
PROMPTS_ON_A_PAGE = 50


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The person's projects, what waits in each, and one button to go on."""
    cards = overviews.project_cards(user=user_of(request))
    may_create = policy.projects_may_create(request.user)
    return render(request, "annotation/home.html", {"cards": cards, "may_create": may_create})


@require_http_methods(["GET", "HEAD", "POST"])
def project_new(request: HttpRequest) -> HttpResponse:
    if not policy.projects_may_create(request.user):
        raise Http404("Not found.")
    form = ProjectForm(_posted(request))
    if form.is_valid():
        try:
            project = project_create(created_by=user_of(request), **form.cleaned_data)
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request, gettext("The project is there. Next: guidelines, prompts, people.")
            )
            return redirect("project_detail", project.uid)
    return render(request, "annotation/project_new.html", {"form": form}, status=_status(form))


@require_safe
def project_detail(request: HttpRequest, project_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid)
    context = project_frame(request, project, "overview")
    membership = context["membership"]
    context["slots"] = overviews.slot_counts(project=project)
    if membership is not None:
        context["mine"] = annotator_progress(membership=membership)
        context["holds_task"] = overviews.task_held(membership=membership)
    if context["is_reviewer"]:
        context["contributions"] = overviews.contributions(project=project)
        context["prompt_counts"] = overviews.prompt_counts(project=project)
        context["datasets"] = project.datasets.select_related("artifact")[:5]
    return render(request, "annotation/project_detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def project_prompts(request: HttpRequest, project_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, MANAGER)
    form = PromptsForm(_posted(request), request.FILES or None)
    if form.is_valid():
        file = form.cleaned_data["file"]
        try:
            counts = prompts_import(project=project, lines=file, name=file.name)
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request,
                ngettext(
                    "%(new)s prompt imported; already here: %(existing)s. "
                    "New answers: %(answers)s.",
                    "%(new)s prompts imported; already here: %(existing)s. "
                    "New answers: %(answers)s.",
                    counts.new,
                )
                % {
                    "new": counts.new,
                    "existing": counts.existing,
                    "answers": counts.answers,
                },
            )
            return redirect("project_prompts", project.uid)
    split, words = request.GET.get("split", ""), request.GET.get("q", "").strip()[:200]
    prompts = overviews.prompts_page(project=project, split=split, words=words)
    page = Paginator(prompts, PROMPTS_ON_A_PAGE).get_page(request.GET.get("page"))
    context = project_frame(request, project, "prompts") | {
        "form": form,
        "page": page,
        "counts": overviews.prompt_counts(project=project),
        "split": split if split in Split.values else "",
        "words": words,
    }
    return render(request, "annotation/project_prompts.html", context, status=_status(form))


@require_safe
def prompt_detail(request: HttpRequest, project_uid: str, prompt_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, MANAGER)
    prompt = get_object_or_404(project.prompts, uid=prompt_uid)
    answers = [
        {"candidate": candidate, "html": markdown_render(candidate.text)}
        for candidate in prompt.candidates.select_related("version__model", "batch")[:50]
    ]
    context = project_frame(request, project, "prompts") | {
        "prompt": prompt,
        "conversation": messages_render(prompt.messages),
        "answers": answers,
    }
    return render(request, "annotation/prompt_detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def project_members(request: HttpRequest, project_uid: str) -> HttpResponse:
    """The people. A new person's one-time link is in the answer to the form, and only there."""
    project = policy.project_for(request.user, project_uid, MANAGER)
    form = PersonForm(_posted(request))
    link: dict[str, str] = {}
    if form.is_valid():
        try:
            user, token = person_add(project=project, actor=user_of(request), **form.cleaned_data)
        except ApplicationError as error:
            error_add(form, error)
        else:
            if not token:
                messages.success(
                    request,
                    gettext("%(user)s is in; they have an account already.") % {"user": user},
                )
                return redirect("project_members", project.uid)
            link = {"name": user.get_username(), "url": _link(request, token)}
            form = PersonForm()
    return _members_page(request, project, form, link)


@require_POST
def member_role(request: HttpRequest, project_uid: str, membership_uid: str) -> HttpResponse:
    project, membership = _member(request, project_uid, membership_uid)
    form = RoleForm(request.POST)
    if form.is_valid():
        try:
            membership_role_change(membership=membership, role=form.cleaned_data["role"])
        except ApplicationError as error:
            messages.error(request, error.message)
        else:
            messages.success(
                request,
                gettext("%(user)s is %(role)s now.")
                % {"user": membership.user, "role": membership.get_role_display()},
            )
    return redirect("project_members", project.uid)


@require_POST
def member_remove(request: HttpRequest, project_uid: str, membership_uid: str) -> HttpResponse:
    project, membership = _member(request, project_uid, membership_uid)
    try:
        membership_remove(membership=membership)
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request,
            gettext("%(user)s has left; their judgements stay.") % {"user": membership.user},
        )
    # Whoever removed themselves can no longer see the page.
    gone = policy.role_of(request.user, project) != MANAGER
    return redirect("home") if gone else redirect("project_members", project.uid)


@require_http_methods(["GET", "HEAD", "POST"])
def member_link(request: HttpRequest, project_uid: str, membership_uid: str) -> HttpResponse:
    """Another one-time link, for a person who has no password.

    The page that shows it has this address: opened anew, it is the list of people and no link.
    """
    project, membership = _member(request, project_uid, membership_uid)
    if request.method != "POST":
        return redirect("project_members", project.uid)
    try:
        token = person_link_renew(membership=membership, actor=user_of(request))
    except ApplicationError as error:
        messages.error(request, error.message)
        return redirect("project_members", project.uid)
    link = {"name": membership.user.get_username(), "url": _link(request, token)}
    return _members_page(request, project, PersonForm(), link)


@require_http_methods(["GET", "HEAD", "POST"])
def project_datasets(request: HttpRequest, project_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, MANAGER)
    form = FreezeForm(_posted(request))
    if form.is_valid():
        try:
            kind, weights = form.cleaned_data["kind"] or Task.Kind.RANKING, None
            if form.cleaned_data["weighted"]:
                weights = annotator_weights(project=project, kind=kind)
            dataset = preference_dataset_freeze(
                project=project,
                created_by=user_of(request),
                query=form.query(),
                kind=kind,
                weights=weights,
            )
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request,
                ngettext(
                    "Dataset %(number)s holds %(used)s judgement.",
                    "Dataset %(number)s holds %(used)s judgements.",
                    dataset.counts["used"],
                )
                % {"number": dataset.number, "used": dataset.counts["used"]},
            )
            return redirect("dataset_detail", dataset.uid)
    return _datasets_page(request, project, form, RankingsForm())


@require_POST
def dataset_import(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Rankings from a file, as a dataset of their own."""
    project = policy.project_for(request.user, project_uid, MANAGER)
    form = RankingsForm(request.POST, request.FILES)
    if form.is_valid():
        file = form.cleaned_data["file"]
        try:
            dataset = preference_dataset_import(
                project=project, lines=file, name=file.name, created_by=user_of(request)
            )
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request,
                ngettext(
                    "Dataset %(number)s holds %(used)s ranking.",
                    "Dataset %(number)s holds %(used)s rankings.",
                    dataset.counts["used"],
                )
                % {"number": dataset.number, "used": dataset.counts["used"]},
            )
            return redirect("dataset_detail", dataset.uid)
    return _datasets_page(request, project, FreezeForm(), form)


@require_safe
def dataset_detail(request: HttpRequest, dataset_uid: str) -> HttpResponse:
    dataset = policy.dataset_for(request.user, dataset_uid)
    splits = exports.splits_of(dataset)
    split = request.GET.get("split", exports.split_first(dataset))
    context = project_frame(request, dataset.project, "datasets") | {
        "dataset": dataset,
        "splits": splits,
        "split": split if split in splits else exports.ALL,
        "layouts": layouts_of(dataset.kind),
        "formats": exports.FORMATS,
        "excluded": [(name, n) for name, n in _excluded(dataset) if n],
    }
    return render(request, "annotation/dataset_detail.html", context)


@require_safe
def dataset_export(request: HttpRequest, dataset_uid: str) -> HttpResponseBase:
    """The dataset as one file, streamed; `?format=` and `&layout=` as annotation.exports has them.

    `&split=` is one side, or "all": then each row says whose side it is on. Without it come the
    rows that the pages offer first.
    """
    dataset = policy.dataset_for(request.user, dataset_uid)
    format, layout = request.GET.get("format", "jsonl"), request.GET.get("layout", "")
    if format not in exports.FORMATS or (layout and layout not in LAYOUTS):
        raise Http404("Not found.")
    split = request.GET.get("split", exports.split_first(dataset))
    if split not in (exports.ALL, *Split.values):
        raise Http404("Not found.")
    try:
        return exports.dataset_export_response(
            dataset=dataset,
            layout=layout,
            format=format,
            split=None if split == exports.ALL else split,
        )
    except ApplicationError as error:  # its files are not as they were frozen
        messages.error(request, error.message)
        return redirect("dataset_detail", dataset.uid)


@require_http_methods(["GET", "HEAD", "POST"])
def project_guidelines(request: HttpRequest, project_uid: str) -> HttpResponse:
    """The guidelines: read by every member, published by managers."""
    project = policy.project_for(request.user, project_uid)
    context = project_frame(request, project, "guidelines")
    if request.method == "POST" and not context["is_manager"]:
        raise Http404("Not found.")
    newest = project.guidelines.select_related("author").first()
    form = GuidelineForm(_posted(request), initial={"text": newest.text if newest else ""})
    if form.is_valid():
        try:
            published = guideline_publish(
                project=project, text=form.cleaned_data["text"], author=user_of(request)
            )
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request, gettext("Guidelines %(number)s are out.") % {"number": published.number}
            )
            return redirect("project_guidelines", project.uid)
    context |= {
        "form": form,
        "newest": newest,
        "html": markdown_render(newest.text) if newest else "",
        "history": project.guidelines.select_related("author")[1:21],
    }
    return render(request, "annotation/project_guidelines.html", context, status=_status(form))


def _members_page(
    request: HttpRequest, project: Project, form: PersonForm, link: dict[str, str]
) -> HttpResponse:
    members = list(overviews.members_now(project=project))
    context = project_frame(request, project, "members") | {
        "form": form,
        "link": link,
        "members": members,
        "may_get_link": policy.links_may_give(request.user, members),
        "roles": Membership.Role.choices,
    }
    return render(request, "annotation/project_members.html", context, status=_status(form))


def _datasets_page(
    request: HttpRequest, project: Project, form: FreezeForm, import_form: RankingsForm
) -> HttpResponse:
    context = project_frame(request, project, "datasets") | {
        "form": form,
        "import_form": import_form,
        "datasets": [
            (one, exports.split_first(one))
            for one in project.datasets.select_related("artifact", "created_by")
        ],
        "formats": exports.FORMATS,
        "slots": overviews.slot_counts(project=project),
    }
    status = max(_status(form), _status(import_form))
    return render(request, "annotation/project_datasets.html", context, status=status)


def _member(
    request: HttpRequest, project_uid: str, membership_uid: str
) -> tuple[Project, Membership]:
    project = policy.project_for(request.user, project_uid, MANAGER)
    members = project.memberships.filter(removed_at=None).select_related("user")
    return project, get_object_or_404(members, uid=membership_uid)


def _link(request: HttpRequest, token: str) -> str:
    return request.build_absolute_uri(reverse("sign_in_link", args=[token]))


def _excluded(dataset: PreferenceDataset) -> list[tuple[str, int]]:
    return list(dataset.counts.get("excluded", {}).items())


def _posted(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: also when nothing at all was sent."""
    return request.POST if request.method == "POST" else None


def _status(form: Any) -> int:
    """A page that refuses a form says so in its status too."""
    return 400 if form.is_bound and form.errors else 200
