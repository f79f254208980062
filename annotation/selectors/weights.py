"""How far each annotator of a project is relied on."""

from annotation.models import Membership, Project
from annotation.selectors.agreements import kind_weights
from annotation.selectors.judged import judgements_newest, tasks_shared

WEIGHED = ("ranking", "pair", "rating")  # kinds that two people may judge alike


def annotator_weights(*, project: Project, kind: str) -> dict[str, float]:
    """Pseudonym → weight, 0 to 1, from agreement on the newest judgements of a kind.

    Whoever shares no task with others, or judges what cannot be compared, is not named. Two
    queries.
    """
    shared = tasks_shared(judgements_newest(project=project, kind=kind))
    weights = kind_weights(kind, shared) if shared and kind in WEIGHED else {}
    uids = dict(Membership.objects.filter(pk__in=weights).values_list("pk", "uid"))
    return {uids[pk]: weight for pk, weight in weights.items()}
