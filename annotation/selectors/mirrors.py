"""How far people agree with themselves when the sides of a pair are swapped."""

from collections import defaultdict
from dataclasses import dataclass

from annotation.agreement import Interval, wilson_interval
from annotation.models import Project, Submission
from annotation.selectors.judged import COUNTING, MAX_SUBMISSIONS
from annotation.selectors.judgements import judgement_of


@dataclass(frozen=True, kw_only=True)
class SelfAgreement:
    """Pairs that somebody judged twice, sides swapped, and how often they chose the same answer."""

    pairs: int
    same: int
    took_the_side: int  # of those that differ: the left one, or the right one, both times

    @property
    def interval(self) -> Interval | None:
        """The share of pairs with the same choice, with Wilson's interval at 95 %."""
        return wilson_interval(self.same, self.pairs)


def self_agreements(*, project: Project) -> dict[int, SelfAgreement]:
    """Each member's agreement with themselves, of those asked twice. One query."""
    again = (
        Submission.objects.filter(
            task__project=project,
            task__mirror_of__isnull=False,
            status__in=COUNTING,
            task__mirror_of__status__in=COUNTING,
        )
        .select_related(
            "task__mirror_of__task",
            "comparison__better",
            "task__mirror_of__comparison__better",
        )
        .order_by("-pk")[:MAX_SUBMISSIONS]
    )
    outcomes: dict[int, list[tuple[bool, bool]]] = defaultdict(list)
    for one in again:
        first = one.task.mirror_of
        if first is not None:
            sides = _side(first), _side(one)
            same = judgement_of(first)["better"] == judgement_of(one)["better"]
            outcomes[one.annotator_id].append((same, sides[0] is not None and sides[0] == sides[1]))
    return {
        who: SelfAgreement(
            pairs=len(rows),
            same=sum(same for same, _ in rows),
            took_the_side=sum(side for _, side in rows),
        )
        for who, rows in outcomes.items()
    }


def _side(submission: Submission) -> int | None:
    """0 where the answer shown first was chosen, 1 for the second, None for a tie."""
    better = judgement_of(submission)["better"]
    return submission.shown_order.index(better) if better else None
