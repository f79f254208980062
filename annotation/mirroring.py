"""Pairs that are asked of the same person again, sides swapped: when one is due. Plain Python."""

import hashlib
import secrets
from collections.abc import Sequence

from annotation.gold import gold_due
from annotation.shown_order import order_shuffled

# So far back that the first choice is not simply remembered.
TASKS_BETWEEN = 8


def mirror_due(*, handed_out: int, mirrored: int, share: float, seed: str) -> bool:
    """Whether the next task somebody gets is a pair of their own, mirrored; see gold.gold_due.

    handed_out, mirrored: the tasks the person ever got, and those of them that were mirrored.
    share: of all tasks handed out, how many are mirrored, 0 to 1. seed: the person's own.
    """
    return gold_due(
        handed_out=handed_out, gold_handed_out=mirrored, share=share, seed=f"{seed}:mirrored"
    )


def mirror_pick(uids: Sequence[str], *, seed: str) -> str:
    """One of the submissions that may be asked again, which nobody can guess."""
    return min(uids, key=lambda uid: hashlib.sha256(f"{seed}:{uid}".encode()).digest())


def mirror_seed(shown: Sequence[str]) -> int:
    """A seed of shown_order.order_shuffled that shows these in the opposite order.

    By trying: of two answers every second seed does. Raises ValueError for more than two.
    """
    if len(shown) != 2:
        raise ValueError(f"a mirrored pair has two answers; got {len(shown)}")
    while True:
        seed = secrets.randbits(63)
        if order_shuffled(shown, seed=seed) == list(reversed(shown)):
            return seed
