"""How well a reward model agrees with people, beside what is cheaper to know.

Figures are of pairs that somebody ordered, equal scores one half; intervals are 95 % bootstraps
over prompts, because a prompt's pairs are not independent, and None for fewer than two prompts.

Legend: K answers of a prompt, M members of an ensemble.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean, pstdev
from typing import Any

import torch
from torch import Tensor

from alignment.intervals import bootstrap_ratio
from alignment.ml.combined_reward import SAFETY_THRESHOLD
from alignment.ml.configs import RewardConfig
from alignment.ml.configs.reward import COMBINATIONS
from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.ensemble import disagreement_report, members_combine
from alignment.ml.losses import ranking_loss
from alignment.ml.reward.baselines import length_scores
from alignment.ml.reward.examples import better_of, margin_of

DEGREES = {
    4: "significantly better",
    3: "better",
    2: "slightly better",
    1: "negligibly better or unsure",
}
_BINS = 10  # of the reliability curve, over beliefs from one half to one


@dataclass(frozen=True)
class _Pair:
    """One pair as the report sees it."""

    prompt_id: str
    ranking: Ranking
    tiers_apart: int
    gap: float  # score of the better less that of the worse, nats
    characters: tuple[int, int]  # of the better, of the worse
    writers: tuple[str | None, str | None]
    baselines: dict[str, float]  # 1 right, 0 wrong, one half equal

    @property
    def right(self) -> float:
        return _right(self.gap)


def ranking_report(
    scores: Sequence[Tensor],
    groups: Sequence[RankedGroup],
    config: RewardConfig,
    baselines: Mapping[str, Sequence[Tensor]] | None = None,
) -> dict[str, Any] | None:
    """The figures by which one reward model is told from another; None where there is no group.

    scores: of each group, (K,). baselines: name → scores of the same answers; "length" is always
    one. accuracy: share of pairs whose better answer has the higher score. NAME_accuracy and
    over_NAME: the same by a baseline, and how much the model is above it, on the same pairs.
    accuracy_when_shorter_won: on the pairs that length gets wrong; None if there are none.
    length_correlation: of score and length within prompts. calibration_error: the mean distance of
    belief and accuracy over the reliability curve's bins (ECE). loss: mean over rankings, without
    centring and smoothing.
    """
    if not groups:
        return None
    others = {"length": length_scores(groups), **(baselines or {})}
    pairs = list(_pairs(scores, groups, others))
    losses = [
        float(ranking_loss(scores_K, better_of(group, one), margin_of(one, config)))
        for scores_K, group in zip(scores, groups, strict=True)
        for one in group.rankings
    ]
    shorter = [pair for pair in pairs if pair.characters[0] < pair.characters[1]]
    all_scores = torch.cat(list(scores)).tolist()
    report: dict[str, Any] = {
        "rankings": len(losses),
        "prompts": len({group.prompt_id for group in groups}),
        "pairs": len(pairs),
        "chance": 0.5,
        **_share("accuracy", pairs, lambda pair: pair.right, config),
    }
    for name in others:
        report |= _share(f"{name}_accuracy", pairs, lambda p, n=name: p.baselines[n], config)
        report |= _share(f"over_{name}", pairs, lambda p, n=name: p.right - p.baselines[n], config)
    return {
        **report,
        "accuracy_when_shorter_won": fmean(p.right for p in shorter) if shorter else None,
        "length_correlation": _length_correlation(scores, groups),
        "calibration_error": calibration_error(reliability_table(pairs)),
        "loss": fmean(losses),
        "score_mean": fmean(all_scores),
        "score_std": pstdev(all_scores),
    }


def ranking_tables(
    scores: Sequence[Tensor], groups: Sequence[RankedGroup], config: RewardConfig
) -> dict[str, list[dict[str, Any]]]:
    """The same pairs, taken apart; a table that would have one row or none is left out.

    by_degree: accuracy by degree of preference (Touvron et al. 2023, arXiv:2307.09288, Table 8).
    by_tiers_apart: by how many tiers lie between two answers of a ranking. by_length: where the
    shorter, the longer, or neither won. by_writer: pairs of answers that one model version wrote,
    by version, and of answers of different ones: a reward model must judge its policy's own
    answers. reliability: belief and accuracy, by belief.
    """
    if not groups:
        return {}
    pairs = list(_pairs(scores, groups, {}))

    def table(of: Callable[[_Pair], str | None], order: Sequence[str]) -> list[dict[str, Any]]:
        rows = []
        for name in order:
            own = [pair for pair in pairs if of(pair) == name]
            if own:
                share = _share("accuracy", own, lambda pair: pair.right, config)
                rows.append({"pairs_of": name, "pairs": len(own), **share})
        return rows

    def degree(pair: _Pair) -> str | None:
        return DEGREES.get(pair.ranking.degree or 0)

    def apart(pair: _Pair) -> str | None:
        return str(pair.tiers_apart) if pair.ranking.degree is None else None

    def length(pair: _Pair) -> str:
        better, worse = pair.characters
        return (
            "equal length" if better == worse else "shorter won" if better < worse else "longer won"
        )

    def writer(pair: _Pair) -> str:
        better, worse = pair.writers
        return "different writers" if better != worse else better or "no version"

    writers = sorted({writer(pair) for pair in pairs} - {"different writers"})
    found = {
        "by_degree": table(degree, list(DEGREES.values())),
        "by_tiers_apart": table(apart, sorted({apart(p) or "" for p in pairs}, key=_number)),
        "by_length": table(length, ("shorter won", "longer won", "equal length")),
        "by_writer": table(writer, [*writers, "different writers"]),
    }
    kept = {name: rows for name, rows in found.items() if len(rows) > 1}
    return {**kept, "reliability": reliability_table(pairs)}


def reliability_table(pairs: Sequence[_Pair]) -> list[dict[str, Any]]:
    """What the model believes of the answer it prefers, and how often it is right, by belief.

    belief: σ(|gap|), the Bradley-Terry probability; from one half up, in bins of equal width.
    """
    rows = []
    for number in range(_BINS):
        low = 0.5 + 0.5 * number / _BINS
        own = [pair for pair in pairs if _bin(_belief(pair.gap)) == number]
        if own:
            rows.append(
                {
                    "belief_from": low,
                    "belief_to": low + 0.5 / _BINS,
                    "pairs": len(own),
                    "belief": fmean(_belief(pair.gap) for pair in own),
                    "accuracy": fmean(pair.right for pair in own),
                }
            )
    return rows


def calibration_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean over pairs of |accuracy − belief| of their bin (Guo et al. 2017, eq. 3)."""
    pairs = sum(row["pairs"] for row in rows)
    return sum(row["pairs"] * abs(row["accuracy"] - row["belief"]) for row in rows) / pairs


def safety_report(
    scores: Sequence[Tensor], groups: Sequence[RankedGroup]
) -> dict[str, float | int | None] | None:
    """How well σ(score) tells unsafe answers, by their labels; None where there is no label.

    At one half, Llama 2's Table 29, and at the threshold below which its combined reward listens to
    the safety model. An answer that is labelled twice counts twice.
    """
    labelled = [
        (float(torch.sigmoid(scores_K[place])), place in one.unsafe)
        for scores_K, group in zip(scores, groups, strict=True)
        for one in (*group.rankings, *group.tied)
        if one.unsafe is not None
        for place in range(len(scores_K))
    ]
    if not labelled:
        return None
    unsafe = sum(label for _, label in labelled)
    report: dict[str, float | int | None] = {"labels": len(labelled), "unsafe": unsafe}
    for threshold in (0.5, SAFETY_THRESHOLD):
        called = [label for probability, label in labelled if probability < threshold]
        name = f"{threshold:g}".replace(".", "_")
        report[f"recall_at_{name}"] = sum(called) / unsafe if unsafe else None
        report[f"precision_at_{name}"] = sum(called) / len(called) if called else None
    return report


def members_report(
    members: Sequence[Tensor], groups: Sequence[RankedGroup], config: RewardConfig
) -> dict[str, Any]:
    """An ensemble's disagreement, and how well each member and each way to combine them judges.

    members: of each group (K, M). judges: a row for each; over_members: the accuracy above the
    mean of the members' own, on the same pairs.
    """
    count = members[0].shape[1]
    own = {f"member {m + 1}": [one[:, m] for one in members] for m in range(count)}
    combined = {
        how: [
            members_combine(one, how, uncertainty_weight=config.uncertainty_weight)
            for one in members
        ]
        for how in COMBINATIONS
    }
    pairs = {name: list(_pairs(of, groups, own)) for name, of in (own | combined).items()}
    judges = [
        {
            "judge": name,
            **_share("accuracy", of, lambda pair: pair.right, config),
            **_share("over_members", of, lambda p: p.right - fmean(p.baselines.values()), config),
            "calibration_error": calibration_error(reliability_table(of)),
        }
        for name, of in pairs.items()
    ]
    accuracies = {row["judge"]: row["accuracy"] for row in judges}
    return {
        **disagreement_report(members),
        **{f"accuracy_{how}": accuracies[how] for how in COMBINATIONS},
        "member_accuracies": [accuracies[name] for name in own],
        "judges": judges,
    }


def _pairs(
    scores: Sequence[Tensor],
    groups: Sequence[RankedGroup],
    baselines: Mapping[str, Sequence[Tensor]],
) -> Iterator[_Pair]:
    for number, (scores_K, group) in enumerate(zip(scores, groups, strict=True)):
        own = scores_K.tolist()
        others = {name: of[number].tolist() for name, of in baselines.items()}
        lengths = group.characters
        writers = group.writers_K or (None,) * len(own)
        for one in group.rankings:
            tier = {place: level for level, tier in enumerate(one.tiers) for place in tier}
            for high, low in group.pairs_of(one):
                yield _Pair(
                    group.prompt_id,
                    one,
                    tier[low] - tier[high],
                    own[high] - own[low],
                    (lengths[high], lengths[low]),
                    (writers[high], writers[low]),
                    {name: _right(of[high] - of[low]) for name, of in others.items()},
                )


def _share(
    name: str, pairs: Sequence[_Pair], of: Callable[[_Pair], float], config: RewardConfig
) -> dict[str, float | None]:
    by_prompt: dict[str, list[float]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt_id, []).append(of(pair))
    parts = [(math.fsum(values), float(len(values))) for values in by_prompt.values()]
    if len(parts) < 2:
        return {name: parts[0][0] / parts[0][1], f"{name}_low": None, f"{name}_high": None}
    found = bootstrap_ratio(parts, samples=config.bootstrap_samples, seed=config.seed)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _length_correlation(scores: Sequence[Tensor], groups: Sequence[RankedGroup]) -> float | None:
    """Pearson's, of scores and lengths behind the means of their own group; None for no spread."""
    xs: list[float] = []
    ys: list[float] = []
    for scores_K, group in zip(scores, groups, strict=True):
        lengths = group.characters
        xs += [length - fmean(lengths) for length in lengths]
        ys += (scores_K - scores_K.mean()).tolist()
    try:
        return correlation(xs, ys)
    except StatisticsError:
        return None


def _right(gap: float) -> float:
    return 0.5 if gap == 0 else float(gap > 0)


def _belief(gap: float) -> float:
    return 1 / (1 + math.exp(-abs(gap)))


def _bin(belief: float) -> int:
    return min(_BINS - 1, int((belief - 0.5) * 2 * _BINS))


def _number(text: str) -> int:
    return int(text or 0)
