"""Pages of campaigns and rounds. No rule of the domain: selectors read, services write."""

import hashlib
from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from alignment.forms import CampaignForm, ReasonForm, RecipeForm
from alignment.models import Evaluation, Round
from alignment.policy import campaign_for, candidate_for, round_for, round_run_for
from alignment.selectors.lineage import (
    candidate_fate,
    candidate_lineage,
    datasets_labelling,
    lineage_foreign_mark,
)
from alignment.selectors.overview import (
    campaign_figures,
    campaign_line,
    campaign_moves,
    campaign_rounds,
    campaigns_of,
    evaluation_rows,
    evaluation_samples,
    round_overview,
)
from alignment.selectors.rounds import campaign_policy, prompt_counts, prompt_tags, round_open
from alignment.services.campaigns import campaign_create
from alignment.services.rounds import (
    round_annotation_close,
    round_cancel,
    round_continue,
    round_decide,
    round_retry,
    round_run_cancel,
    round_run_retry,
    round_start,
)
from alignment.tasks import advance_round
from annotation.policy import projects_managed
from modelhub.errors import ApplicationError
from modelhub.rendering import markdown_render, messages_render
from modelhub.selectors.workers import workers_silence

SAMPLES_PER_PAGE = 10
STOP_POLLING = 286  # htmx's own status: swap this in, and ask no more


def user_of(request: HttpRequest) -> User:
    """The signed-in person (the login middleware requires one)."""
    assert isinstance(request.user, User)  # noqa: S101 - LoginRequiredMiddleware made sure
    return request.user


@require_safe
def campaign_list(request: HttpRequest) -> HttpResponse:
    if not projects_managed(request.user).exists():
        raise Http404("Not found.")
    campaigns = campaigns_of(user=request.user)
    return render(request, "alignment/campaign_list.html", {"campaigns": campaigns})


@require_http_methods(["GET", "HEAD", "POST"])
def campaign_new(request: HttpRequest) -> HttpResponse:
    if not projects_managed(request.user).exists():
        raise Http404("Not found.")
    initial = {"project": request.GET.get("project", "")}
    form = CampaignForm(request.POST or None, user=user_of(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            campaign = campaign_create(**form.cleaned_data, created_by=user_of(request))
        except ApplicationError as error:
            form.add_error(_field_of(error, form.fields), error.message)
        else:
            return redirect("campaign_detail", campaign.uid)
    status = 422 if form.errors else 200
    return render(request, "alignment/campaign_new.html", {"form": form}, status=status)


@require_safe
def campaign_detail(request: HttpRequest, campaign_uid: str) -> HttpResponse:
    campaign = campaign_for(request.user, campaign_uid)
    champion = campaign_policy(campaign=campaign)
    context = {
        "campaign": campaign,
        "champion": champion,
        "rounds": campaign_rounds(campaign=campaign),
        "open_round": round_open(campaign=campaign),
        "line": campaign_line(campaign=campaign, champion=champion),
        "moves": campaign_moves(campaign=campaign),
        "figures": campaign_figures(campaign=campaign),
    }
    return render(request, "alignment/campaign_detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def round_new(request: HttpRequest, campaign_uid: str) -> HttpResponse:
    """The one form that starts a round. Sent twice, it starts one."""
    campaign = campaign_for(request.user, campaign_uid)
    form = RecipeForm(request.POST or None, campaign=campaign)
    if request.method == "POST" and form.is_valid():
        try:
            round = round_start(
                campaign=campaign,
                recipe=form.recipe,
                launch_key=form.cleaned_data["launch_key"],
                actor=user_of(request),
            )
        except ApplicationError as error:
            form.add_error(_field_of(error, form.fields), error.message)
        else:
            advance_round.delay_on_commit(round.pk)
            return redirect("round_detail", round.uid)
    context = {
        "campaign": campaign,
        "form": form,
        "policy": campaign_policy(campaign=campaign),
        "open_round": round_open(campaign=campaign),
        "previous": campaign.rounds.order_by("-number").first(),
        "tags": prompt_tags(project=campaign.project),
        "counts": prompt_counts(project=campaign.project),
    }
    return render(request, "alignment/round_new.html", context, status=422 if form.errors else 200)


@require_safe
def round_detail(request: HttpRequest, round_uid: str) -> HttpResponse:
    """The round; to htmx, its live part, or nothing (204) if it is as the page has it."""
    round = round_for(request.user, round_uid)
    overview = round_overview(round=round)
    evaluation = overview.evaluation
    runs = [view.run for stage in overview.stages for view in stage.runs]
    context = {
        "round": round,
        "campaign": round.campaign,
        "overview": overview,
        "silence": workers_silence(runs=runs),
        "rows": evaluation_rows(metrics=evaluation.metrics) if evaluation else [],
        "state_key": f"{round.state}-{round.lap}-{overview.waits_for_person}",
    }
    body = render_to_string("alignment/round_detail.html#live_body", context, request)
    context["seen"] = hashlib.sha256(body.encode()).hexdigest()[:16]
    if not request.headers.get("HX-Request"):
        return render(request, "alignment/round_detail.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    context["swap_actions"] = request.GET.get("state") != context["state_key"]
    status = STOP_POLLING if round.is_ended else 200
    return render(request, "alignment/round_detail.html#live", context, status=status)


@require_safe
def round_samples(request: HttpRequest, round_uid: str) -> HttpResponse:
    """Held-out prompts with what the old and the new policy answered, side by side."""
    round = round_for(request.user, round_uid)
    evaluation = (
        Evaluation.objects.select_related(
            "artifact", "round__campaign", "before__model", "after__model"
        )
        .filter(round=round)
        .first()
    )
    if evaluation is None:
        raise Http404("Not found.")
    page = Paginator(evaluation_samples(evaluation=evaluation), SAMPLES_PER_PAGE).get_page(
        request.GET.get("page")
    )
    shown = [
        {
            "messages": messages_render(pair.prompt.messages),
            "difference": pair.difference,
            "sides": [
                (
                    version,
                    [{"sample": one, "html": markdown_render(one.record.text)} for one in samples],
                )
                for version, samples in (
                    (evaluation.before, pair.before),
                    (evaluation.after, pair.after),
                )
            ],
        }
        for pair in page
    ]
    context = {"round": round, "campaign": round.campaign, "page": page, "pairs": shown}
    return render(request, "alignment/round_samples.html", context)


@require_safe
def candidate_origin(request: HttpRequest, candidate_uid: str) -> HttpResponse:
    """Where an answer comes from, back to the people whose judgements shaped its model."""
    candidate = candidate_for(request.user, candidate_uid)
    lineage = candidate_lineage(candidate=candidate)
    managed = projects_managed(request.user)
    lineage_foreign_mark(root=lineage, projects=managed)
    context = {
        "candidate": candidate,
        "project": candidate.prompt.project,
        "html": markdown_render(candidate.text),
        "messages_html": messages_render(candidate.prompt.messages),
        "lineage": lineage,
        "labelling": datasets_labelling(datasets=lineage.datasets(), named=managed),
        "fate": candidate_fate(candidate=candidate),
    }
    return render(request, "alignment/candidate_origin.html", context)


@require_POST
def round_cancel_view(request: HttpRequest, round_uid: str) -> HttpResponse:
    return _act(request, round_uid, round_cancel, gettext("The round is cancelled."))


@require_POST
def round_close_view(request: HttpRequest, round_uid: str) -> HttpResponse:
    return _act(request, round_uid, round_annotation_close, gettext("Annotating is closed."))


@require_POST
def round_continue_view(request: HttpRequest, round_uid: str) -> HttpResponse:
    return _act(request, round_uid, round_continue, gettext("The round goes on."))


@require_POST
def round_retry_view(request: HttpRequest, round_uid: str) -> HttpResponse:
    def retry(*, round: Round, actor: User, reason: str) -> Round:
        return round_retry(round=round, actor=actor)

    return _act(request, round_uid, retry, gettext("The round goes on where it failed."))


@require_POST
def round_decide_view(request: HttpRequest, round_uid: str) -> HttpResponse:
    decision = request.POST.get("decision")

    def decide(*, round: Round, actor: User, reason: str) -> Round:
        if decision not in ("promote", "reject"):
            raise ApplicationError(gettext("Promote or reject?"), {"field": "decision"})
        return round_decide(round=round, promote=decision == "promote", actor=actor, reason=reason)

    done = (
        gettext("The new policy is the champion.")
        if decision == "promote"
        else gettext("The policy is rejected.")
    )
    return _act(request, round_uid, decide, done)


@require_POST
def round_run_cancel_view(request: HttpRequest, round_uid: str, run_uid: str) -> HttpResponse:
    return _run_act(request, round_uid, run_uid, round_run_cancel, gettext("The run is stopping."))


@require_POST
def round_run_retry_view(request: HttpRequest, round_uid: str, run_uid: str) -> HttpResponse:
    return _run_act(
        request, round_uid, run_uid, round_run_retry, gettext("The run is queued again.")
    )


def _run_act(
    request: HttpRequest, round_uid: str, run_uid: str, service: Callable[..., Round], done: str
) -> HttpResponse:
    """Call a service on a run of a round, say how it went, and show the round again."""
    link = round_run_for(request.user, round_uid, run_uid)
    try:
        service(link=link, actor=user_of(request))
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, done)
        advance_round.delay_on_commit(link.round_id)
    return redirect("round_detail", round_uid)


def _act(
    request: HttpRequest, round_uid: str, service: Callable[..., Round], done: str
) -> HttpResponse:
    """Call a service on a round, say how it went, and show the round again."""
    round = round_for(request.user, round_uid)
    given = ReasonForm(request.POST)
    try:
        if not given.is_valid():
            raise ApplicationError(
                gettext("The reason is too long, or no plain text."), {"field": "reason"}
            )
        service(round=round, actor=user_of(request), reason=given.cleaned_data["reason"])
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, done)
        advance_round.delay_on_commit(round.pk)
    return redirect("round_detail", round.uid)


def _field_of(error: ApplicationError, fields: object) -> str | None:
    """The form's field an error names, or None: then it belongs to the whole form."""
    field = error.extra.get("field")
    return field if isinstance(fields, dict) and field in fields else None
