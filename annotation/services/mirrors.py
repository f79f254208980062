"""Mirrored pairs: the same two answers to the same person, later, with their sides swapped.

What somebody says then is compared with what they said before (selectors/mirrors.py). It is asked
as a task of its own that nobody else is given, and that no dataset and no agreement with others
counts: the first judgement stands for both.
"""

from annotation.mirroring import TASKS_BETWEEN, mirror_due, mirror_pick
from annotation.models import Assignment, Membership, Submission, Task, TaskCandidate
from annotation.selectors.queue import qualification_is_wanted

_LOOKED_AT = 200
_MAY_BE_ASKED_AGAIN = (Submission.Status.ACCEPTED, Submission.Status.SURPLUS)


def mirrored_task_make(*, membership: Membership) -> tuple[Task, Submission] | None:
    """A copy of a pair that this member judged a while ago, if one is due now, and that judgement.

    Its one slot is taken: whoever calls this gives it to the member, in the same transaction, in
    which the member is locked. No query where the project mirrors nothing; else three, over the
    member's own newest work alone.
    """
    project = membership.project
    if not project.mirrored_share or membership.source != Membership.Source.PERSON:
        return None
    if qualification_is_wanted(membership=membership):
        return None  # before the test is passed it is the test alone
    given = Assignment.objects.filter(annotator=membership)
    due = mirror_due(
        handed_out=given.count(),
        mirrored=given.filter(task__mirror_of__isnull=False).count(),
        share=project.mirrored_share,
        seed=membership.uid,
    )
    first = _judged_a_while_ago(membership) if due else None
    if first is None:
        return None
    task = Task.objects.create(
        project=project,
        kind=Task.Kind.PAIR,
        prompt_id=first.task.prompt_id,
        overlap=1,
        slots_free=0,
        mirror_of=first,
    )
    TaskCandidate.objects.bulk_create(
        TaskCandidate(task=task, candidate_id=candidate, position=position)
        for candidate, position in first.task.task_candidates.values_list(
            "candidate_id", "position"
        )
    )
    return task, first


def _judged_a_while_ago(membership: Membership) -> Submission | None:
    """A pair of real work, not held or closed, that the member judged and was not asked again."""
    newest = Submission.objects.filter(annotator=membership).order_by("-pk")
    before = newest.values_list("pk", flat=True)[TASKS_BETWEEN : TASKS_BETWEEN + _LOOKED_AT]
    rows = newest.filter(
        pk__in=list(before),
        status__in=_MAY_BE_ASKED_AGAIN,
        task__kind=Task.Kind.PAIR,
        task__gold__isnull=True,
        task__is_qualification=False,
        task__mirror_of__isnull=True,
        task__held_at=None,
        task__closed_at=None,
        mirrors=None,
    ).select_related("task")
    by_uid = {one.uid: one for one in rows}
    return by_uid[mirror_pick(list(by_uid), seed=membership.uid)] if by_uid else None
