"""Several reward models as one: combined scores, averaged weights, and what they disagree about.

Members are runs of `alignment.ml.reward` that differ in their seed, or the heads of one model
(`ensemble` has the arithmetic and its sources). Each is loaded alone, so that k members need the
memory of one. Their scores are put on a common zero, the mean over all answers read.

By hand: `python -m alignment.ml.reward_ensemble RUN_DIR`.

Legend: K answers of a prompt, M members.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.ml.configs import EnsembleConfig, RewardConfig
from alignment.ml.configs.ensemble import WEIGHT_AVERAGE
from alignment.ml.data import RankedGroup, rankings_load
from alignment.ml.ensemble import (
    disagreement_report,
    members_combine,
    shifts_common,
    weights_average,
)
from alignment.ml.reward.examples import template_check
from alignment.ml.reward.report import members_report, ranking_report, ranking_tables
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.scoring import Scorer
from alignment.ml.shared_prefix import Group, attach, member_scores, pack
from alignment.records import MemberScoreRecord, TaskRecord
from annotation.records import RANKINGS_NAME
from modelhub.ml.adapter import ModelInput, model_context, model_input, model_input_load
from modelhub.ml.chat import prompt_render, scored_encode
from modelhub.ml.checkpoint import model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.records import records_read, records_write
from modelhub.ml.rundir import NotFinite, RunDir, program_run


def members_find(run: RunDir) -> list[ModelInput]:
    """The members, in the order of their numbers. Raises RefusedError without one."""
    roles = [role for role in run.input_roles() if re.fullmatch(r"reward_\d+", role)]
    if not roles:
        raise RefusedError("an ensemble needs a reward model: the run has no input reward_1")
    return [model_input(run, role) for role in sorted(roles, key=lambda role: (len(role), role))]


def tasks_lay(
    tasks: Iterable[TaskRecord], tokenizer: Any, *, max_tokens: int
) -> tuple[list[TaskRecord], list[Group]]:
    """The tasks whose answers all fit, and those answers in tokens."""
    kept, groups = [], []
    for task in tasks:
        answers = [
            scored_encode(tokenizer, one["text"], one["finish_reason"]) for one in task.candidates
        ]
        group = Group(prompt_render(tokenizer, task.messages), answers)
        if group.longest <= max_tokens:
            kept.append(task)
            groups.append(group)
    return kept, groups


@torch.no_grad()
def scores_read(model: Any, scorer: Scorer, groups: Sequence[Group], budget: int) -> list[Tensor]:
    """The scores of the model's heads for each group, float32 on the CPU, shape (K, heads)."""
    found: list[Tensor] = [torch.empty(0)] * len(groups)
    for row in pack(groups, budget):
        with scorer.precision():
            row_scores = member_scores(model, row)
        for index, scores_KM in zip(row.indices, row_scores, strict=True):
            if not torch.isfinite(scores_KM).all():
                raise NotFinite(f"a member's score of an answer of group {index} is not finite")
            found[index] = scores_KM.cpu()
    return found


def members_score(
    given: Sequence[ModelInput], groups: Sequence[Group], config: EnsembleConfig
) -> list[Tensor]:
    """All members' scores of each group on a common zero, (K, M), the members one by one."""
    by_member = []
    for one in given:
        scorer = Scorer(one, role="reward", dtype=config.dtype)
        by_member.append(scores_read(scorer.model, scorer, groups, config.budget_tokens))
        del scorer
    scores = [torch.cat(own, dim=1) for own in zip(*by_member, strict=True)]
    shifts_M = torch.tensor(shifts_common(scores), dtype=torch.float32)
    return [one - shifts_M for one in scores]


def average_make(given: Sequence[ModelInput], config: EnsembleConfig) -> Any:
    """The model whose weights are the members' mean, each put on bfloat16's grid.

    Members must have gone out from one base: weights of others have no common mean. Raises
    RefusedError for fewer than two, for virtual tokens, which are no weights of a model, and naming
    a weight that one has in another shape.
    """
    if len(given) < 2:
        raise RefusedError("averaging weights needs two members or more")
    models = [model_input_load(one, dtype="float32", role="reward") for one in given]
    if any(hasattr(model, "peft_config") for model in models):
        raise RefusedError("a prefix or P-tuning adapter has no weights to take a mean of")
    try:
        weights = weights_average([model.state_dict() for model in models])
    except ValueError as error:
        raise RefusedError(f"the members' weights have no mean: {error}") from error
    average: Any = models[0]
    average.load_state_dict(weights)
    average.requires_grad_()
    shifts = [getattr(model.config, "reward_shifts", None) for model in models]
    if any(shifts):
        heads = average.score.weight.shape[0]
        known = torch.tensor([one or [0.0] * heads for one in shifts], dtype=torch.float64)
        average.config.reward_shifts = known.mean(0).tolist()
    weights_check(average)
    weights_round(average, seed=config.seed)
    return average


def scores_lay(
    tasks: Sequence[TaskRecord], members: Sequence[Tensor], config: EnsembleConfig
) -> Iterator[MemberScoreRecord]:
    """Every answer of the tasks with its scores, in the tasks' order."""
    for task, scores_KM in zip(tasks, members, strict=True):
        combined_K = _combined(scores_KM, config)
        for one, own_M, score in zip(task.candidates, scores_KM, combined_K, strict=True):
            yield MemberScoreRecord(
                candidate=one["id"],
                prompt_id=task.prompt_id,
                score=float(score),
                members=own_M.tolist(),
            )


def _combined(scores_KM: Tensor, config: EnsembleConfig) -> Tensor:
    how = "mean" if config.combine == WEIGHT_AVERAGE else config.combine
    return members_combine(scores_KM, how, uncertainty_weight=config.uncertainty_weight)


def report_make(
    members: Sequence[Tensor],
    groups: Sequence[RankedGroup],
    average: Any,
    config: EnsembleConfig,
) -> dict[str, Any]:
    """The ensemble's judgement of held-out rankings: of the average where there is one, else of
    the combined scores; and the members' own beside it."""
    settings = RewardConfig(
        bootstrap_samples=config.bootstrap_samples,
        seed=config.seed,
        uncertainty_weight=config.uncertainty_weight,
    )
    scores = [_combined(one, config) for one in members]
    if average is not None:
        attach(average)
        with torch.no_grad():
            found: dict[int, Tensor] = {}
            for row in pack([group.group for group in groups], config.budget_tokens):
                own = member_scores(average, row)
                found |= dict(zip(row.indices, own, strict=True))
        scores = [found[index].mean(1) for index in range(len(groups))]
    return {
        "held_out": ranking_report(scores, groups, settings),
        "held_out_tables": ranking_tables(scores, groups, settings),
        "ensemble": members_report(members, groups, settings),
    }


def main(run: RunDir) -> None:
    config = run.config(EnsembleConfig)
    if not run.has_input("rankings") and not run.has_input("tasks"):
        raise RefusedError("there is nothing to score: the run has neither rankings nor tasks")
    given = members_find(run)
    tokenizer = tokenizer_load(given[0].whole)
    for one in given[1:]:
        template_check(tokenizer_load(one.whole), tokenizer)
    contexts = [model_context(one) for one in given]
    max_tokens = min(config.max_tokens, *contexts)
    held_out: list[RankedGroup] = []
    if run.has_input("rankings"):
        path = run.input("rankings") / RANKINGS_NAME
        data = rankings_load(path, tokenizer, max_tokens=max_tokens)
        held_out = data.of_split("held_out")
        if not held_out:
            raise RefusedError(f"of {data.rankings} rankings none is held out and has a pair")
    tasks: list[TaskRecord] = []
    task_groups: list[Group] = []
    read = 0
    if run.has_input("tasks"):
        records = list(records_read(run.input("tasks") / "tasks.jsonl", TaskRecord))
        read = len(records)
        tasks, task_groups = tasks_lay(records, tokenizer, max_tokens=max_tokens)
        if not tasks:
            raise RefusedError(f"none of {read} tasks has at most {max_tokens} tokens an answer")
    average = average_make(given, config) if config.combine == WEIGHT_AVERAGE else None
    groups = [*(one.group for one in held_out), *task_groups]
    members = members_score(given, groups, config)
    result: dict[str, Any] = {"members": int(members[0].shape[1]), "combine": config.combine}
    outputs: dict[str, str] = {}
    if held_out:
        result |= report_make(members[: len(held_out)], held_out, average, config)
    if tasks:
        own = members[len(held_out) :]
        records_write(run.output("scores") / "scores.jsonl", scores_lay(tasks, own, config))
        outputs["scores"] = "evaluation"
        result["tasks"] = {
            "scored": len(tasks),
            "too_long": read - len(tasks),
            **disagreement_report(own),
        }
    if average is not None:
        folder = run.output("model")
        model_save(average, tokenizer, folder, dtype="bfloat16")
        facts = model_directory_check(folder)
        outputs["model"] = "model"
        result |= {
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
        }
    run.succeed(outputs=outputs, result=result)


if __name__ == "__main__":
    program_run(main)
