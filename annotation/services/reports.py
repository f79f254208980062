"""Reports: a task with which something is wrong waits for a reviewer and for nobody else.

Whoever has it in hand can finish it; it is handed to no one new until a reviewer keeps or retires
it. An annotator reports it, or the project's number of people skipped it.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import F, Max, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from annotation.models import Assignment, Membership, Report, Task
from annotation.services.assignments import assignment_skip
from annotation.services.notifications import notification_send, reviewers_notify
from annotation.services.reviews import reviewer_check
from modelhub.errors import ApplicationError, ConflictError

MAX_REPORT_CHARS = 2_000


@transaction.atomic
def report_submit(*, assignment: Assignment, text: str) -> Report:
    """Say that something is wrong with a task, and go on with it or not.

    It is held back from others and the reviewers are told. The same words again, while they wait
    for a decision, are the same report. Raises ApplicationError for none or too many words.
    """
    text = text.strip()
    if not text or len(text) > MAX_REPORT_CHARS:
        raise ApplicationError(
            gettext("Say what is wrong, in 1 to %(max_report_chars)s characters.")
            % {"max_report_chars": MAX_REPORT_CHARS},
            {"field": "text"},
        )
    task_id = _task_of_others(assignment)
    waiting = {"reporter": assignment.annotator, "text": text, "decided_at": None}
    report = Report.objects.filter(task=task_id, **waiting).first()
    if report is not None:
        return report
    _hold(task_id)
    report = Report.objects.create(task_id=task_id, **waiting)
    _reviewers_tell(
        assignment,
        text=gettext_noop("%(person)s reports a task: %(text)s"),
        values={"person": str(assignment.annotator.user), "text": text},
    )
    return report


@transaction.atomic
def task_skip(*, assignment: Assignment, reason: str) -> Assignment:
    """Skip a task (see assignment_skip), and bring it to the reviewers if it is skipped too often.

    That is after the project's `skips_to_review` people. Skips before a reviewer's last decision
    are over and done with. Two queries more than a skip, where the project wants it.
    """
    skipped = assignment_skip(assignment=assignment, reason=reason)
    wanted = assignment.annotator.project.skips_to_review
    if not wanted:
        return skipped
    task_id = _task_of_others(assignment)
    decided = Report.objects.filter(task=task_id).aggregate(at=Max("decided_at"))["at"]
    skips = Assignment.objects.filter(
        Q(task=task_id) | Q(task__mirror_of__task=task_id), state=Assignment.State.SKIPPED
    )
    if decided is not None:
        skips = skips.filter(ended_at__gt=decided)
    reasons = list(skips.order_by("ended_at").values_list("skip_reason", flat=True))
    if len(reasons) >= wanted and _hold(task_id):
        said = Counter(reasons)  # each once, in their order
        lines = "; ".join(f"{why} (× {times})" if times > 1 else why for why, times in said.items())
        Report.objects.create(task_id=task_id, text=lines[:MAX_REPORT_CHARS])
        _reviewers_tell(
            assignment,
            text=gettext_noop("A task was skipped by %(people)s people."),
            values={"people": len(reasons)},
        )
    return skipped


@transaction.atomic
def report_decide(*, report: Report, reviewer: Membership, decision: str) -> Report:
    """Keep a reported task, which is handed out again, or retire it.

    A retired task wants no more people than have judged it, or are at it. All reports of the task
    that wait are decided alike; who reported it is told. Raises RefusedError for whoever is no
    reviewer here, and ConflictError for a report that was decided before.
    """
    if decision not in Report.Decision.values:
        raise ApplicationError(gettext("A task is kept or retired."), {"field": "decision"})
    task = Task.objects.select_for_update(no_key=True).get(pk=report.task_id)
    reviewer_check(reviewer=reviewer, project_id=task.project_id)
    waiting = Report.objects.filter(task=task, decided_at=None)
    reporters = {one.reporter_id: one.reporter for one in waiting.select_related("reporter")}
    now = timezone.now()
    if not waiting.filter(pk=report.pk).exists():
        raise ConflictError(gettext("This report was decided already."))
    waiting.update(decision=decision, decided_by=reviewer, decided_at=now)
    rows = Task.objects.filter(pk=task.pk)
    if decision == Report.Decision.RETIRE:
        rows.update(overlap=F("overlap") - F("slots_free"), slots_free=0, held_at=None)
        rows.filter(closed_at=None).update(closed_at=now)
    else:
        rows.update(held_at=None)
    text = {
        Report.Decision.KEEP: gettext_noop(
            "The task that you reported is handed out again: “%(prompt)s”"
        ),
        Report.Decision.RETIRE: gettext_noop(
            "The task that you reported is handed out no more: “%(prompt)s”"
        ),
    }[Report.Decision(decision)]
    notification_send(
        recipients=[one for one in reporters.values() if one is not None],
        text=text,
        values={"prompt": str(task.prompt)},
        path=reverse("project_dashboard", args=[task.project.uid]),
    )
    report.refresh_from_db()
    return report


def _task_of_others(assignment: Assignment) -> int:
    """The task; of a pair asked again mirrored, the pair itself: that is what others are given."""
    mirrored = assignment.task.mirror_of
    return assignment.task_id if mirrored is None else mirrored.task_id


def _hold(task_id: int) -> bool:
    """Hand a task out no more; False where it is held already."""
    free = Task.objects.filter(pk=task_id, held_at=None)
    return bool(free.update(held_at=timezone.now()))


def _reviewers_tell(assignment: Assignment, *, text: str, values: Mapping[str, Any]) -> None:
    project = assignment.annotator.project
    path = reverse("project_reports", args=[project.uid])
    reviewers_notify(
        project=project, text=text, values=values, path=path, besides=assignment.annotator
    )
