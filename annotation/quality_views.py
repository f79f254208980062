"""Pages of quality: own work, who needs help, reviews, disagreements, known answers, progress.

No rule is made here: policy admits, selectors read, services write.
"""

from contextlib import AbstractContextManager, nullcontext
from datetime import date
from typing import Any

from django import forms
from django.contrib import messages
from django.core.cache import cache
from django.core.paginator import Paginator
from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.formats import date_format
from django.utils.translation import gettext, override
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation import policy
from annotation.agreement import Interval
from annotation.forms import error_add
from annotation.frame import membership_wanted, project_frame, quality_frame
from annotation.gold import GOLD_KINDS
from annotation.models import KNOWN, Membership, Project, Review, Submission, Task
from annotation.quality_tables import OWN_TABLES, PROGRESS_TABLES, QUALITY_TABLES
from annotation.selectors.agreements import COMPARED, KindAgreement
from annotation.selectors.dashboards import (
    Week,
    gold_is_told,
    own_dashboard,
    progress_dashboard,
)
from annotation.selectors.quality import (
    PersonQuality,
    QualityReport,
    disagreements,
    gold_task_scores,
    quality_report,
)
from annotation.selectors.reviewing import STATUSES, next_unreviewed, submissions_for_review
from annotation.selectors.shown import judgement_shown, judgement_words, letters_of, task_shown
from annotation.services.adjudications import STANDING, adjudication_submit
from annotation.services.gold import MAX_EXPLANATION_CHARS, gold_task_close, gold_task_create
from annotation.services.qualification import membership_qualify
from annotation.services.reviews import MAX_REASON_CHARS, review_submit, submissions_accept
from annotation.tables import FORMATS, table_response
from modelhub.charts import Bars, Chart, bars_draw, chart_draw
from modelhub.errors import ApplicationError

MANAGER = Membership.Role.MANAGER
REVIEWER = Membership.Role.REVIEWER
ON_A_PAGE = 50
DISAGREEMENTS_SHOWN = 100
KNOWN_SHOWN = 200
_REPORT_S = 300


class ReviewForm(forms.Form):
    verdict = forms.ChoiceField(
        label=_("Verdict"), choices=Review.Verdict.choices, widget=forms.RadioSelect
    )
    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=MAX_REASON_CHARS,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("The annotator reads it. Rejecting and sending back need one."),
    )


class AdjudicationForm(forms.Form):
    submission = forms.CharField(
        label=_("Submission"),
        max_length=64,
        error_messages={"required": _("Choose the judgement that stands.")},
    )
    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=MAX_REASON_CHARS,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class KnownForm(forms.Form):
    explanation = forms.CharField(
        label=_("Explanation"),
        required=False,
        max_length=MAX_EXPLANATION_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Why this is the answer: shown after a task of the test."),
    )
    is_qualification = forms.BooleanField(
        required=False, label=_("Part of the test before real work, not mixed in secretly")
    )


# ------------------------------------------------------------------ dashboards


@require_safe
def project_dashboard(request: HttpRequest, project_uid: str) -> HttpResponse:
    """A member's own work: today, agreement, feedback. `?format=` takes the days away."""
    try:
        membership = policy.membership_for(request.user, project_uid)
    except Http404:
        return membership_wanted(request, project_uid)
    project = membership.project
    report = report_of(project)
    with _file_language(request):
        dashboard = own_dashboard(membership=membership, report=report)
    if (format := _format(request)) is not None:
        return _table(OWN_TABLES, request, dashboard, format)
    quality = dashboard.quality
    context = project_frame(request, project, "dashboard") | {
        "dashboard": dashboard,
        "days": _days_drawn(dashboard.days),
        "agreement": chart_draw(
            [
                (one.label, *_spread(one.interval))
                for one in (quality.agreement if quality else [])
                if one.interval is not None
            ]
        ),
        "quality": quality,
        "gold_is_told": gold_is_told(quality),
    }
    return render(request, "annotation/project_dashboard.html", context)


@require_safe
def project_progress(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Throughput, time, coverage, agreement over time and labels. `?table=&format=` as a file."""
    project = policy.project_for(request.user, project_uid, MANAGER)
    with _file_language(request):
        dashboard = progress_dashboard(project=project)
    if (format := _format(request)) is not None:
        return _table(PROGRESS_TABLES, request, dashboard, format)
    context = project_frame(request, project, "progress") | {
        "dashboard": dashboard,
        "days": _days_drawn(dashboard.days),
        "weeks": _weeks_drawn(dashboard.weeks),
        "kind_weeks": [(one.title, _weeks_drawn(one.weeks)) for one in dashboard.kind_weeks],
        "labels": [
            (one.title, bars_draw([(label, count) for label, count in one.counts]), one.counts)
            for one in dashboard.labels
        ],
        "tables": PROGRESS_TABLES,
    }
    return render(request, "annotation/project_progress.html", context)


@require_safe
def project_quality(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Who needs help, and how far people agree. `?table=&format=` as a file."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    report = report_of(project)
    if (format := _format(request)) is not None:
        return _table(QUALITY_TABLES, request, report, format)
    context = quality_frame(request, project, "quality") | {
        "report": report,
        "kinds": chart_draw(_kind_marks(report.kinds)),
        "weights": chart_draw(_weight_marks(report.people)),
        "unreviewed": submissions_for_review(project=project).count(),
        "disagreements": len(disagreements(project=project)),
        "tables": QUALITY_TABLES,
    }
    return render(request, "annotation/project_quality.html", context)


def report_of(project: Project) -> QualityReport:
    """The project's report, at most five minutes old: it takes seconds where much was judged."""
    key = f"quality:{project.uid}"
    report = cache.get(key)
    if not isinstance(report, QualityReport):
        report = quality_report(project=project)
        cache.set(key, report, _REPORT_S)
    return report


# ------------------------------------------------------------------ reviews


@require_http_methods(["GET", "HEAD", "POST"])
def project_reviews(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Submissions to look at; a POST accepts the chosen ones at once."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    if request.method == "POST":
        reviewer = policy.reviewer_for(request.user, project_uid)
        chosen = Submission.objects.filter(
            task__project=project, uid__in=request.POST.getlist("submission")
        ).select_related("task__project", "annotator")
        done = submissions_accept(submissions=chosen[:ON_A_PAGE], reviewer=reviewer)
        messages.success(request, gettext("%(accepted)s accepted.") % {"accepted": done.accepted})
        if done.own:
            messages.warning(
                request,
                gettext("%(own)s are your own: somebody else reviews those.") % {"own": done.own},
            )
        if done.gone:
            messages.warning(
                request, gettext("%(gone)s were taken back meanwhile.") % {"gone": done.gone}
            )
        return redirect("project_reviews", project.uid)
    status = request.GET.get("status", "")
    status = status if status in STATUSES else "unreviewed"
    kind = request.GET.get("kind", "")
    found = submissions_for_review(
        project=project,
        status=status,
        kind=kind if kind in Task.Kind.values else "",
        annotator=request.GET.get("annotator", "")[:64],
    )
    page = Paginator(found, ON_A_PAGE).get_page(request.GET.get("page"))
    context = quality_frame(request, project, "reviews") | {
        "page": page,
        "status": status,
        "statuses": STATUSES.items(),
        "kind": kind,
        "kinds": Task.Kind.choices,
        "annotator": request.GET.get("annotator", ""),
        "people": project.memberships.select_related("user").order_by("user__username"),
    }
    return render(request, "annotation/project_reviews.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def review_detail(request: HttpRequest, project_uid: str, submission_uid: str) -> HttpResponse:
    """One submission: what was asked, what was said, and the form to accept, reject, send back."""
    submission = policy.submission_for(request.user, project_uid, submission_uid)
    project = submission.task.project
    reviewer = policy.membership_of(request.user, project)
    form = ReviewForm(request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        reviewer = policy.reviewer_for(request.user, project_uid)
        if form.is_valid():
            try:
                review = review_submit(
                    submission=submission, reviewer=reviewer, **form.cleaned_data
                )
            except ApplicationError as error:
                error_add(form, error)
                status = error.status
            else:
                messages.success(
                    request,
                    gettext("It is %(verdict)s.") % {"verdict": review.get_verdict_display()},
                )
                return _after_review(project, submission, reviewer)
        else:
            status = 400
    is_own = reviewer is not None and submission.annotator.user_id == reviewer.user_id
    shown = task_shown(task=submission.task, order=submission.shown_order)
    context = quality_frame(request, project, "reviews") | {
        "submission": submission,
        "shown": shown,
        "seen_by": submission.annotator.shown_name,
        "said": judgement_shown(submission=submission, letters=shown.letters),
        "reviews": submission.reviews.select_related("reviewer__user"),
        "revisions": submission.revisions.count(),
        "form": form,
        "is_own": is_own,
        "known_form": KnownForm(),
        "may_be_known": submission.task.kind in GOLD_KINDS
        and submission.task.gold is None
        and not is_own,
    }
    return render(request, "annotation/review_detail.html", context, status=status)


def _after_review(
    project: Project, submission: Submission, reviewer: Membership
) -> HttpResponseRedirect:
    after = next_unreviewed(project=project, after=submission, reviewer_pk=reviewer.pk)
    if after is not None:
        return redirect("review_detail", project.uid, after.uid)
    return redirect("project_reviews", project.uid)


# ------------------------------------------------------------------ disagreements


@require_safe
def project_disagreements(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Tasks on which people differ and nobody decided, the worst first."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    found = disagreements(project=project)
    context = quality_frame(request, project, "disagreements") | {
        "found": found[:DISAGREEMENTS_SHOWN],
        "count": len(found),
    }
    return render(request, "annotation/project_disagreements.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def disagreement_detail(request: HttpRequest, project_uid: str, task_uid: str) -> HttpResponse:
    """One task with everybody's judgement; a POST says which one stands."""
    task = policy.task_for(request.user, project_uid, task_uid)
    project = task.project
    submissions = list(
        task.submissions.filter(status__in=STANDING)
        .select_related("annotator__user", "task", "assignment")
        .order_by("pk")
    )
    form = AdjudicationForm(request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        reviewer = policy.reviewer_for(request.user, project_uid)
        if form.is_valid():
            chosen = get_object_or_404(task.submissions, uid=form.cleaned_data["submission"])
            try:
                adjudication_submit(
                    task=task,
                    reviewer=reviewer,
                    submission=chosen,
                    reason=form.cleaned_data["reason"],
                )
            except ApplicationError as error:
                error_add(form, error)
                status = error.status
            else:
                messages.success(request, gettext("Decided."))
                return redirect("project_disagreements", project.uid)
        else:
            status = 400
    # One order for all: that of whoever judged first. The others' judgements are put into it.
    first = submissions[0] if submissions else None
    shown = task_shown(task=task, order=first.shown_order if first else ())
    frame = quality_frame(request, project, "disagreements")
    membership = frame["membership"]
    context = frame | {
        "task": task,
        "shown": shown,
        "seen_by": first.annotator.shown_name if first else None,
        "is_translated": len(submissions) > 1,
        "judgements": [
            (
                one,
                judgement_shown(submission=one, letters=shown.letters),
                shown.letters_in(one.shown_order) if one is not first else "",
            )
            for one in submissions
        ],
        "adjudication": getattr(task, "adjudication", None),
        "is_own": membership is not None
        and any(one.annotator.user_id == membership.user_id for one in submissions),
        "form": form,
    }
    return render(request, "annotation/disagreement_detail.html", context, status=status)


# ------------------------------------------------------------------ known answers, the test


@require_http_methods(["GET", "HEAD", "POST"])
def project_known(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Tasks with a known answer and how people did on them; a POST retires one."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    if request.method == "POST":
        policy.reviewer_for(request.user, project_uid)
        task = policy.task_for(request.user, project_uid, request.POST.get("task", ""))
        try:
            gold_task_close(task=task)
            messages.success(request, gettext("It is handed out no more."))
        except ApplicationError as error:
            messages.error(request, error.message)
        return redirect("project_known", project.uid)
    scores = gold_task_scores(project=project)
    tasks = list(
        project.tasks.filter(KNOWN)
        .select_related("prompt")
        .order_by(F("closed_at").desc(nulls_first=True), "-pk")[:KNOWN_SHOWN]
    )
    letters = letters_of(tasks=tasks)
    rows = []
    for task in tasks:
        line, notes = "", list[str]()
        if task.gold is not None:
            line, notes = judgement_words(task.kind, task.gold, letters[task.pk])
        given = scores.get(task.pk, [])
        score = sum(given) / len(given) if given else None
        rows.append(
            {"task": task, "line": line, "notes": notes, "score": score, "judged": len(given)}
        )
    context = quality_frame(request, project, "known") | {"rows": rows}
    return render(request, "annotation/project_known.html", context)


@require_POST
def known_new(request: HttpRequest, project_uid: str, submission_uid: str) -> HttpResponse:
    """Make a known answer of a submission's judgement."""
    submission = policy.submission_for(request.user, project_uid, submission_uid)
    reviewer = policy.reviewer_for(request.user, project_uid)
    form = KnownForm(request.POST)
    if not form.is_valid():
        messages.error(request, gettext("The explanation is too long."))
        return redirect("review_detail", project_uid, submission_uid)
    try:
        gold_task_create(submission=submission, reviewer=reviewer, **form.cleaned_data)
    except ApplicationError as error:
        messages.error(request, error.message)
        return redirect("review_detail", project_uid, submission_uid)
    messages.success(request, gettext("There is a task with this known answer now."))
    return redirect("project_known", project_uid)


@require_POST
def member_qualify(request: HttpRequest, project_uid: str, membership_uid: str) -> HttpResponse:
    """Let a member in without the test."""
    member = policy.member_for(request.user, project_uid, membership_uid)
    membership_qualify(membership=member)
    messages.success(
        request, gettext("%(user)s is let in to the real work.") % {"user": member.user}
    )
    return redirect("project_members", project_uid)


def _weight_marks(people: list[PersonQuality]) -> list[tuple[str, float, float, float]]:
    """The mean weight of each person who has one, the sixteen lowest, for a chart."""
    marks = []
    for person in people:
        weights = [one.weight for one in person.agreement if one.weight is not None]
        if weights:
            mean = sum(weights) / len(weights)
            marks.append((person.membership.shown_name, mean, mean, mean))
    return sorted(marks, key=lambda mark: mark[1])[:16]


def _kind_marks(kinds: list[KindAgreement]) -> list[tuple[str, float, float, float]]:
    """The main coefficient of each kind that has one, for a chart."""
    return [
        (kind.label, *_spread(one.interval))
        for kind in kinds
        for one in kind.figures
        if (one.measure, one.of) == (COMPARED[kind.kind].measure, COMPARED[kind.kind].of)
    ]


def _days_drawn(days: list[tuple[date, int]]) -> Bars | None:
    return bars_draw([(date_format(day, "MONTH_DAY_FORMAT"), count) for day, count in days])


def _weeks_drawn(weeks: list[Week]) -> Chart | None:
    return chart_draw(
        [(date_format(one.start, "MONTH_DAY_FORMAT"), *_spread(one.agreement)) for one in weeks]
    )


def _spread(interval: Interval) -> tuple[float, float, float]:
    low = interval.value if interval.low is None else interval.low
    high = interval.value if interval.high is None else interval.high
    return interval.value, low, high


def _format(request: HttpRequest) -> str | None:
    """The file format that was asked for; Http404 for one there is not."""
    format = request.GET.get("format")
    if format is not None and format not in FORMATS:
        raise Http404("Not found.")
    return format


def _table(tables: dict[str, Any], request: HttpRequest, figures: Any, format: str) -> HttpResponse:
    """The table that was asked for, the first if none was; Http404 for one there is not."""
    name = request.GET.get("table", next(iter(tables)))
    if name not in tables:
        raise Http404("Not found.")
    with _file_language(request):
        return table_response(tables[name](figures), format)


def _file_language(request: HttpRequest) -> AbstractContextManager[None]:
    """English for a file, which programs read; the reader's language for a page."""
    return override("en") if "format" in request.GET else nullcontext()
