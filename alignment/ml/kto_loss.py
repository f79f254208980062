"""KTO's loss, and the figures of answers under it. The equations are those of `kto`.

Legend: A answers of a row, K answers of a prompt.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from alignment.intervals import bootstrap_ratio
from alignment.ml.configs import KtoConfig
from alignment.ml.unpaired import UnpairedGroup, classes_of

Logprobs = list[list[float]]  # of groups, Σ log p of every answer, nats


def kto_losses(
    ratios_A: Tensor,
    desirable_A: Tensor,
    z0: float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """The loss of each answer, as the head of `kto` has them.

    ratios_A: log π/π_ref, nats. desirable_A: bool. z0: the reference point, nats. Returns shape
    (A,). Raises ValueError if the shapes differ.
    """
    if ratios_A.shape != desirable_A.shape:
        raise ValueError(f"{len(ratios_A)} log ratios and {len(desirable_A)} labels")
    gains_A = torch.where(desirable_A, ratios_A - z0, z0 - ratios_A)
    weights_A = torch.where(desirable_A, desirable_weight, undesirable_weight)
    # σ(−x) is 1 − σ(x), and exact where σ(x) rounds to 1.
    return weights_A * torch.sigmoid(-beta * gains_A)


def reference_point(
    policy: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]
) -> float:
    """z0: the mean log ratio of mismatched answers, 0 where it is below or where there are none.

    policy, reference: Σ log p of each group's answers, nats.
    """
    ratios = [
        own - given
        for policy_K, reference_K in zip(policy, reference, strict=True)
        for own, given in zip(policy_K, reference_K, strict=True)
    ]
    return max(0.0, fmean(ratios)) if ratios else 0.0


def group_losses(ratios_K: Tensor, z0: float, group: UnpairedGroup, config: KtoConfig) -> Tensor:
    """The losses of a group's answers, shape (K,)."""
    return kto_losses(
        ratios_K,
        torch.tensor(group.desirable_K, device=ratios_K.device),
        z0,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )


def loss_start(groups: Sequence[UnpairedGroup], config: KtoConfig) -> float:
    """The loss of the reference itself, which training starts from."""
    desirable, undesirable = classes_of(groups)
    weighed = config.desirable_weight * desirable + config.undesirable_weight * undesirable
    return 0.5 * weighed / (desirable + undesirable)


@dataclass
class Sums:
    """Figures over answers that add up."""

    loss: float = 0.0
    right: float = 0.0  # answers on their side of the reference point; on it: one half
    desirable: float = 0.0  # how many
    undesirable: float = 0.0
    better: float = 0.0  # β log π/π_ref of the desirable ones
    worse: float = 0.0

    @property
    def answers(self) -> float:
        return self.desirable + self.undesirable

    def add(
        self, ratios_K: Tensor, losses_K: Tensor, z0: float, group: UnpairedGroup, beta: float
    ) -> None:
        """A group's own."""
        self.loss += float(losses_K.sum())
        for ratio, is_desirable in zip(ratios_K.tolist(), group.desirable_K, strict=True):
            gain = ratio - z0 if is_desirable else z0 - ratio
            self.right += (gain > 0) + 0.5 * (gain == 0)
            if is_desirable:
                self.desirable += 1
                self.better += beta * ratio
            else:
                self.undesirable += 1
                self.worse += beta * ratio

    def described(self, z0: float) -> dict[str, float]:
        """As metrics, by answer; those of both classes only where there are both."""
        found = {"loss": self.loss / self.answers, "accuracy": self.right / self.answers, "kl": z0}
        if self.desirable:
            found["reward_better"] = self.better / self.desirable
        if self.undesirable:
            found["reward_worse"] = self.worse / self.undesirable
        if self.desirable and self.undesirable:
            found["margin"] = found["reward_better"] - found["reward_worse"]
        return found


@dataclass(frozen=True)
class Seen:
    """A split as the policy sees it."""

    z0: float
    groups: tuple[Sums, ...]
    pairs_right: tuple[float, ...]  # of each group, pairs whose desirable answer has more reward

    def described(self) -> dict[str, float]:
        fields = asdict(Sums())
        summed = Sums(**{name: sum(getattr(one, name) for one in self.groups) for name in fields})
        return summed.described(self.z0)


def groups_see(
    policy: tuple[Logprobs, Logprobs],
    reference: tuple[Logprobs, Logprobs],
    groups: Sequence[UnpairedGroup],
    config: KtoConfig,
) -> Seen:
    """Each group's figures, from log-probabilities of (its answers, mismatched ones)."""
    z0 = reference_point(policy[1], reference[1])
    found, right = [], []
    for own, given, group in zip(policy[0], reference[0], groups, strict=True):
        ratios_K = torch.tensor(own) - torch.tensor(given)
        sums = Sums()
        sums.add(ratios_K, group_losses(ratios_K, z0, group, config), z0, group, config.beta)
        found.append(sums)
        gaps = [float(ratios_K[up] - ratios_K[down]) for up, down in group.pairs]
        right.append(sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps))
    return Seen(z0, tuple(found), tuple(right))


def held_out_report(
    before: Seen, after: Seen, groups: Sequence[UnpairedGroup], config: KtoConfig
) -> dict[str, Any]:
    """A split before and after training; intervals are 95 % bootstrap ones over prompts.

    `difference`: the mean loss after less before. `accuracy`: answers on their side of the
    reference point. `pair_accuracy`: where a prompt has answers of both classes, pairs of which the
    desirable one has the higher implicit reward. The reference itself is at one half of either.
    """
    parts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    rows = zip(before.groups, after.groups, after.pairs_right, groups, strict=True)
    for old, new, right, group in rows:
        parts["difference"].append((new.loss - old.loss, new.answers))
        parts["accuracy"].append((new.right, new.answers))
        if group.pairs:
            parts["pair_accuracy"].append((right, float(len(group.pairs))))
    desirable, undesirable = classes_of(groups)
    found: dict[str, Any] = {
        "prompts": len(groups),
        "desirable": desirable,
        "undesirable": undesirable,
        "pairs": sum(len(group.pairs) for group in groups),
        "loss_before": before.described()["loss"],
        **{f"{name}_after": value for name, value in after.described().items()},
    }
    for name, items in parts.items():
        if len(items) > 1:  # one prompt has no spread
            found[name] = asdict(
                bootstrap_ratio(items, samples=config.bootstrap_samples, seed=config.seed)
            )
    return found
