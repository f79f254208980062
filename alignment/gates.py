"""What the recipe decides by itself: arithmetic on the facts that programs reported.

Plain Python, standard library only.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.recipe import Recipe
from annotation.records import RankingRecord

CHANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the new policy should take the old one's place, and why, in words."""

    promote: bool
    reason: str


def snapshot_problem(rankings: Iterable[RankingRecord], recipe: Recipe) -> str:
    """Why a snapshot can train no reward model, before any time is spent on it; empty if it can.

    A ranking in which everything is tied tells nothing. Held-out rankings are needed only by a
    recipe that sets the reward model a test.
    """
    telling: Counter[str] = Counter()
    for ranking in rankings:
        telling[ranking.split] += len(ranking.tiers) > 1
    if not telling["train"]:
        return "no ranking of a train prompt prefers one answer to another"
    tested = recipe.reward_accuracy_floor > 0 or recipe.reward_above_chance
    if tested and not telling["held_out"]:
        return "no ranking of a held-out prompt prefers one answer to another"
    return ""


def judgement_lost(held_out: Mapping[str, Any], recipe: Recipe) -> str:
    """Why a reward model may not be optimised against; empty if it may.

    held_out: {"pairs", "accuracy", "accuracy_low", …} as the reward program reports them: the share
    of held-out pairs it ranks as people did, with its 95 % interval.
    """
    pairs = held_out.get("pairs") or 0
    accuracy = held_out.get("accuracy")
    if recipe.reward_accuracy_floor == 0 and not recipe.reward_above_chance:
        return ""
    if not pairs or accuracy is None:
        return (
            "no held-out pair was ranked, so nobody knows whether the reward model can be trusted"
        )
    if accuracy < recipe.reward_accuracy_floor:
        return (
            f"the reward model ranks {accuracy:.1%} of {pairs} held-out pairs right;"
            f" the floor is {recipe.reward_accuracy_floor:.1%}"
        )
    low = held_out.get("accuracy_low")
    if recipe.reward_above_chance and (low is None or low <= CHANCE):
        return (
            f"the reward model ranks {accuracy:.1%} of {pairs} held-out pairs right, and its"
            f" interval reaches chance"
        )
    return ""


def verdict_of(metrics: Mapping[str, Any], recipe: Recipe) -> Verdict:
    """Promote if the reward rose for certain and the policy did not stray too far.

    metrics: the evaluation's: `reward_difference` {"mean", "low", "high"} over held-out prompts,
    paired, with its 95 % interval, and `kl_per_answer_nats`.
    """
    low = metrics["reward_difference"]["low"]
    if not low > 0:
        return Verdict(
            promote=False,
            reason=f"the reward's difference is not above 0 for certain (lower bound {low:+.3f})",
        )
    kl = float(metrics["kl_per_answer_nats"])
    if recipe.kl_limit and not kl <= recipe.kl_limit:
        return Verdict(
            promote=False,
            reason=f"the policy strayed {kl:.1f} nats per answer; the limit is {recipe.kl_limit:g}",
        )
    return Verdict(
        promote=True,
        reason=f"the reward rose (lower bound {low:+.3f}) at a KL of {kl:.1f} nats per answer",
    )


def figure_mean(figure: Any) -> float:
    """The mean of a figure that may come with its interval."""
    return float(figure["mean"] if isinstance(figure, Mapping) else figure)
