"""Tasks with a known answer: made from a judgement that a reviewer trusts, and retired."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.gold import GOLD_KINDS
from annotation.models import Membership, Submission, Task, TaskCandidate
from annotation.selectors.judgements import judgement_of
from annotation.services.reviews import reviewer_check
from modelhub.errors import ApplicationError, RefusedError

MAX_EXPLANATION_CHARS = 5_000
# Everybody may get it. The most a slot counter holds, less room for what is live.
GOLD_OVERLAP = 30_000


@transaction.atomic
def gold_task_create(
    *,
    submission: Submission,
    reviewer: Membership,
    explanation: str = "",
    is_qualification: bool = False,
) -> Task:
    """Make a task whose known answer is this submission's judgement: a copy of its task.

    The copy has the same prompt and answers and looks like any other to whoever gets it. With
    `is_qualification` it belongs to the test before real work instead. Asked again for the same
    task, it replaces the known answer.
    Raises ApplicationError for kinds that cannot be scored, RefusedError for whoever is no reviewer
    here or gave that judgement.
    """
    task = submission.task
    reviewer_check(reviewer=reviewer, project_id=task.project_id)
    if submission.annotator_id == reviewer.pk:
        raise RefusedError(
            gettext("This is your own judgement: somebody else says that it is right.")
        )
    if task.kind not in GOLD_KINDS:
        raise ApplicationError(
            gettext("A %(kind)s has no known answer that others are scored by.")
            % {"kind": task.kind}
        )
    if task.gold is not None or task.is_qualification:
        raise ApplicationError(gettext("This task has a known answer already."))
    explanation = explanation.strip()
    if len(explanation) > MAX_EXPLANATION_CHARS:
        raise ApplicationError(
            gettext("An explanation is at most %(max_explanation_chars)s characters.")
            % {"max_explanation_chars": MAX_EXPLANATION_CHARS},
            {"field": "explanation"},
        )
    candidates = list(task.task_candidates.values_list("candidate_id", "position"))
    gold = judgement_of(submission)
    copy = (
        Task.objects.select_for_update(no_key=True)
        .filter(
            project=task.project_id,
            kind=task.kind,
            prompt=task.prompt_id,
            gold__isnull=False,
            is_qualification=is_qualification,
            closed_at=None,
            task_candidates__candidate=candidates[0][0],
        )
        .first()
    )
    if copy is not None:
        copy.gold, copy.gold_explanation = gold, explanation
        copy.save(update_fields=["gold", "gold_explanation"])
        return copy
    copy = Task.objects.create(
        project_id=task.project_id,
        kind=task.kind,
        prompt_id=task.prompt_id,
        overlap=GOLD_OVERLAP,
        slots_free=GOLD_OVERLAP,
        gold=gold,
        gold_explanation=explanation,
        is_qualification=is_qualification,
    )
    TaskCandidate.objects.bulk_create(
        TaskCandidate(task=copy, candidate_id=candidate, position=position)
        for candidate, position in candidates
    )
    return copy


@transaction.atomic
def gold_task_close(*, task: Task) -> Task:
    """Hand a known answer out no more; what was judged of it still counts."""
    if task.gold is None:
        raise ApplicationError(gettext("This task has no known answer."))
    Task.objects.filter(pk=task.pk, closed_at=None).update(closed_at=timezone.now())
    task.refresh_from_db(fields=["closed_at"])
    return task
