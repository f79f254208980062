"""What the methods that learn from preferences share: the policy, and how likely its answers are.

Legend: A answers of a row, K answers of a prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.ml.configs import DpoConfig, OrpoConfig
from alignment.ml.configs.preference import PreferenceSettings
from alignment.ml.data import RankedData, RankedGroup, Ranking
from alignment.ml.dropout import dropout_end
from alignment.ml.sft import policy_load
from alignment.ml.shared_prefix import Group, Row, answer_logprobs, attach, pack
from alignment.ml.validation import precision
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.parallel import Processes, objects_gather

# A step's figures on its curves, by the names that TRL's trainers give them: DPO's, KTO's, ORPO's.
FIELD_NAMES = {
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "reward_better": "rewards/chosen",
    "reward_worse": "rewards/rejected",
    "nll": "nll_loss",
    "log_odds": "log_odds_chosen",
    "logp_better": "logps/chosen",
    "logp_worse": "logps/rejected",
}


def step_figures(figures: Mapping[str, float], split: str = "") -> dict[str, float]:
    """Figures as a run's metrics have them. split: whose they are, but for training's."""
    prefix = f"{split}_" if split else ""
    return {f"{prefix}{FIELD_NAMES.get(name, name)}": value for name, value in figures.items()}


def policy_make(given: ModelInput, config: PreferenceSettings) -> Any:
    """The policy to train, as `policy_load` has it, without any dropout of its own."""
    model = policy_load(given, config)
    dropout_end(model)
    return model


def row_logprobs(model: Any, row: Row) -> Tensor:
    """Σ log p of each answer behind its prompt, nats, shape (A,): groups and answers in order."""
    found = [one.sum() for answers in answer_logprobs(model, row) for one in answers]
    return torch.stack(found)


@torch.no_grad()
def logprobs_of(
    model: Any, groups: Sequence[Group], config: PreferenceSettings, processes: Processes
) -> list[list[float]]:
    """Σ log p of each group's answers, nats, without gradients; the same on every process."""
    training = model.training
    model.eval()
    own: list[tuple[int, list[float]]] = []
    for row, _ in processes.share(pack(groups, config.budget_tokens), cost=lambda row: row.tokens):
        with precision(config):
            sums_A = processes.forward(row_logprobs, model, row)
        parts = sums_A.split([len(group.answers) for group in row.groups])
        own += [(i, part.tolist()) for i, part in zip(row.indices, parts, strict=True)]
    model.train(training)
    found = {i: values for rank in objects_gather(own) for i, values in rank}
    return [found[i] for i in range(len(groups))]


def reference_logprobs(
    model: Any,
    given: ModelInput,
    groups: Sequence[Group],
    config: PreferenceSettings,
    processes: Processes,
) -> list[list[float]]:
    """Σ log p of each group's answers under the policy as it was given, before its first step.

    A low-rank adapter starts from nothing, so the model itself is the reference. Virtual tokens
    change it from the start: then the base is loaded once more, and let go.
    """
    if config.adapter not in ("prefix", "p_tuning"):
        return logprobs_of(model, groups, config, processes)
    base = model_input_load(given, dtype="float32")
    attach(base)
    alone = Processes(rank=0, world=1, device=processes.device, strategy=processes.strategy)
    return logprobs_of(base.to(processes.device), groups, config, alone)


def weight_of(ranking: Ranking, config: DpoConfig | OrpoConfig) -> float:
    """How much a ranking counts."""
    return ranking.weight if config.annotator_weights else 1.0


def total_weight_of(groups: Sequence[RankedGroup], config: DpoConfig | OrpoConfig) -> float:
    return sum(weight_of(one, config) for group in groups for one in group.rankings)


def ranked_choose(
    data: RankedData, *, max_tokens: int, weighted: bool, degrees: bool
) -> tuple[list[RankedGroup], list[str]]:
    """The training split's groups, and what is worth knowing about them, a sentence each.

    weighted: rankings count by the weight of their row. degrees: a margin by degree is asked for.
    Raises RefusedError, saying what was read, where there is nothing to learn from, or where a
    setting asks for what no row tells.
    """
    groups = data.of_split("train")
    if not groups:
        raise RefusedError(
            f"there is no pair to train on: {data.rankings} rankings were read; "
            f"{data.without_pairs} put no answer above another, {data.identical} only above one of "
            f"the same words, {data.too_long} have a prompt and answer of more than {max_tokens} "
            f"tokens (the longest has {data.longest_tokens}), and the others are not of the "
            "training split"
        )
    pairs = sum(len(group.pairs) for group in groups)
    if pairs < 2:
        raise RefusedError(f"there is nothing to learn from {pairs} pair: two are the least")
    notes = []
    for count, what in (
        (data.too_long, f"left out: a prompt and answer of more than {max_tokens} tokens"),
        (data.without_pairs, "put no answer above another"),
        (data.identical, "only put an answer above one of the same words"),
    ):
        if count:
            notes.append(f"{count} of {data.rankings} rankings {what}")
    if data.answers_empty:
        notes.append(f"{data.answers_empty} answers are empty")
    rankings = [one for group in groups for one in group.rankings]
    told = sum(one.degree is not None for one in rankings)
    if degrees and not told:
        raise RefusedError(
            "degree_margin: no ranking to train on tells a degree of preference; pairs and "
            "dialogues do, if they were asked for one"
        )
    if degrees and told < len(rankings):
        notes.append(f"{len(rankings) - told} of {len(rankings)} rankings tell no degree: margin 0")
    weights = {one.weight for one in rankings}
    if weighted and weights == {1.0}:
        raise RefusedError(
            "annotator_weights: no ranking carries a weight; freeze the dataset with them"
        )
    if weighted and weights == {0.0}:
        raise RefusedError("annotator_weights: every ranking to train on has weight 0")
    if not weighted and weights != {1.0}:
        notes.append("rows carry weights of their annotators, which are not asked for")
    return groups, notes


def ranked_splits(
    data: RankedData, config: DpoConfig | OrpoConfig, *, max_tokens: int, degrees: bool
) -> tuple[dict[str, list[RankedGroup]], list[str]]:
    """The groups of each split that has any, and the notes of `ranked_choose`, which go into the
    log. What counts nothing by its weight is not computed."""
    chosen, notes = ranked_choose(
        data, max_tokens=max_tokens, weighted=config.annotator_weights, degrees=degrees
    )
    groups = {"train": chosen}
    for split in ("validation", "held_out"):
        if own := data.of_split(split):
            groups[split] = own
    if config.annotator_weights:
        for split, own in groups.items():
            groups[split] = [one for one in own if total_weight_of([one], config)]
        groups = {split: own for split, own in groups.items() if own}
    return groups, notes


def ranked_describe(
    data: RankedData, groups: Sequence[RankedGroup], notes: Sequence[str]
) -> dict[str, Any]:
    """What was read, and what of it was trained on, for a run's result."""
    return {
        "rankings": sum(len(one.rankings) for one in groups),
        "pairs": sum(len(one.pairs) for one in groups),
        "prompts": len({one.prompt_id for one in groups}),
        "rankings_too_long": data.too_long,
        "rankings_without_pairs": data.without_pairs,
        "rankings_identical": data.identical,
        "notes": list(notes),
    }
