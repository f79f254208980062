"""What choosing the best of n answers comes to: exact over all draws of n, not by drawing."""

import math
from collections.abc import Sequence
from statistics import fmean

Rights = list[bool]  # of a prompt's answers, by the checker


def best_of(scores: Sequence[float], n: int) -> float:
    """Expected highest of n of these scores drawn without replacement: exact, every draw counts.

    The i-th smallest (from 0) is the highest of C(i, n−1) of the C(N, n) draws.
    """
    draws = math.comb(len(scores), n)
    return math.fsum(
        score * (math.comb(place, n - 1) / draws) for place, score in enumerate(sorted(scores))
    )


def best_is_right(scores: Sequence[float], rights: Rights, n: int) -> float:
    """How often the highest of n of these scores, drawn without replacement, is a right answer's.

    Of equal scores the first answer's is taken, as it is kept.
    """
    order = sorted(range(len(scores)), key=lambda place: (scores[place], -place))
    draws = math.comb(len(scores), n)
    return math.fsum(
        math.comb(rank, n - 1) / draws for rank, place in enumerate(order) if rights[place]
    )


def best_of_n_curve(
    scores: Sequence[Sequence[float]], rights: Sequence[Rights] | None = None
) -> list[dict[str, float]]:
    """Mean over prompts of `best_of` n, n = 1, 2, 4, … and the fewest answers any prompt has.

    `kl_bound`: nats by which choosing the best of n moves the distribution at most. With `rights`
    `pass_at_n`: how often one of n is right; `best_right`: how often the best of n is.
    """
    most = min(map(len, scores), default=0)
    counts = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    return [
        {
            "n": n,
            "mean_score": fmean(best_of(own, n) for own in scores),
            "kl_bound": math.log(n) - (n - 1) / n,
            **(_right_of_n(scores, rights, n) if rights is not None else {}),
        }
        for n in counts
        if n
    ]


def _right_of_n(
    scores: Sequence[Sequence[float]], rights: Sequence[Rights], n: int
) -> dict[str, float]:
    chosen = [best_is_right(own, right, n) for own, right in zip(scores, rights, strict=True)]
    return {
        "pass_at_n": fmean(best_of([float(one) for one in right], n) for right in rights),
        "best_right": fmean(chosen),
    }
