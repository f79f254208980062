"""Ordering the queue by the reward model's doubt."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from django.db import transaction
from django.utils.translation import gettext

from annotation.doubt import doubt_of
from annotation.models import Project, Task, TaskCandidate
from modelhub.errors import ApplicationError
from modelhub.ml.records import chunked

_ROWS_AT_A_TIME = 500


@transaction.atomic
def doubts_set(*, project: Project, scores: Mapping[str, Sequence[float]]) -> int:
    """Set the doubt of the project's open tasks from a reward model's scores; returns of how many.

    scores: candidate uid → its score by each member of the ensemble (one member is a list of one),
    all lists in one order of members and of one length. A task counts if all of its answers, two or
    more, are scored; the others keep the doubt they had. Higher is more unsure: see doubt_of.
    Raises ApplicationError for scores that are not that.
    """
    if len({len(row) for row in scores.values()}) > 1:
        raise ApplicationError(
            gettext("Every answer wants a score by every member of the ensemble."),
            {"field": "scores"},
        )
    count = 0
    rows = (
        TaskCandidate.objects.filter(task__project=project, task__closed_at=None)
        .order_by("task_id", "position")
        .values_list("task_id", "candidate__uid")
        .iterator(chunk_size=_ROWS_AT_A_TIME)
    )
    for tasks in chunked(_doubted(rows, scores), _ROWS_AT_A_TIME):
        count += Task.objects.bulk_update(tasks, ["doubt"])
    return count


def _doubted(
    rows: Iterator[tuple[int, str]], scores: Mapping[str, Sequence[float]]
) -> Iterator[Task]:
    for task_id, members in groupby(rows, key=lambda row: row[0]):
        uids = [uid for _, uid in members]
        if len(uids) < 2 or not all(uid in scores for uid in uids):
            continue
        try:
            doubt = doubt_of([scores[uid] for uid in uids])
        except ValueError as error:
            raise ApplicationError(
                gettext("Scores were refused: %(error)s.") % {"error": error}, {"field": "scores"}
            ) from error
        yield Task(pk=task_id, doubt=doubt.total)
