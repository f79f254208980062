"""A worker's hands and annotators' hands: they finish runs and tasks through the real services.

What a program would write is written here at once: real files, real artifacts, real rows.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.models import Campaign, Round
from alignment.recipe import Recipe
from alignment.records import SampleRecord
from alignment.selectors.rounds import round_ranking_batches
from alignment.services.campaigns import campaign_create
from alignment.services.rounds import round_advance, round_start
from annotation.models import Membership, Project, Split, Task
from annotation.services.assignments import assignment_next
from annotation.services.rankings import ranking_submit
from modelhub.ml.configs import GenerateConfig, config_load
from modelhub.ml.records import (
    CandidateRecord,
    PromptRecord,
    records_read,
    records_write,
)
from modelhub.models import Artifact, Model, ModelVersion, Run
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder
from tests import builders

MODEL_FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 1000,
    "dtype": "float32",
    "context_tokens": 512,
    "chat_template": "{{ messages }}",
}
HELD_OUT = {
    "pairs": 12,
    "rankings": 4,
    "accuracy": 0.75,
    "accuracy_low": 0.47,
    "accuracy_high": 0.91,
    "length_accuracy": 0.58,
    "chance": 0.5,
    "loss": 0.6,
}
EVALUATION = {
    "reward_before": {"mean": 0.1, "low": 0.0, "high": 0.2},
    "reward_after": {"mean": 0.4, "low": 0.3, "high": 0.5},
    "reward_difference": {"mean": 0.3, "low": 0.1, "high": 0.5},
    "win_rate": {"mean": 0.7, "low": 0.5, "high": 0.85},
    "kl_per_answer_nats": 2.5,
    "kl_per_answer_low": 2.0,
    "kl_per_answer_high": 3.0,
    "kl_per_token_nats": 0.03,
}
SMALL = Recipe(
    engine="transformers",
    samples=3,
    improving_samples=2,
    evaluation_samples=1,
    minimum_rankings=2,
    human_gates=(),
)


def make_base(name: str = "small", *, tokens: Iterable[str] = ()) -> ModelVersion:
    """A base model with files of its own, so that it can be verified.

    tokens: that its tokenizer has besides "a".
    """
    model = Model.objects.create(name=name)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "weights.txt").write_text(name)
        added = [{"id": place, "content": token} for place, token in enumerate(tokens, 1)]
        tokenizer = {"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": added}
        Path(folder, "tokenizer.json").write_text(json.dumps(tokenizer))
        artifact = artifact_store(folder=Path(folder), kind=Artifact.Kind.MODEL)
    return ModelVersion.objects.create(
        model=model, number=1, role=ModelVersion.Role.BASE, artifact=artifact, **MODEL_FACTS
    )


def make_campaign(
    project: Project, *, train: int = 3, held_out: int = 2, name: str = "small"
) -> Campaign:
    """A campaign on a project with so many prompts more, from a base of this name."""
    for split, count in ((Split.TRAIN, train), (Split.HELD_OUT, held_out)):
        for _ in range(count):
            builders.make_prompt(project, split=split)
    return campaign_create(
        project=project, name=f"Refresh {name}", base_version=make_base(name), created_by=None
    )


def make_round(campaign: Campaign, recipe: Recipe = SMALL, key: str = "a key") -> Round:
    return round_start(campaign=campaign, recipe=recipe, launch_key=key, actor=None)


def run_succeed(run: Run, **facts: Any) -> None:
    """Do a queued run as its program would, with these facts laid over what it reports."""
    claimed = runs.run_claim(run_id=run.pk, owner="a test")
    assert claimed is not None
    outputs, result = _WORK[run.program](claimed)
    finished = runs.run_finish(
        run_id=run.pk, fence=claimed.fence, outputs=outputs, result={**result, **facts}
    )
    assert finished


def run_fail(run: Run, reason: str = "it broke") -> None:
    claimed = runs.run_claim(run_id=run.pk, owner="a test")
    assert claimed is not None
    runs.run_attempt_fail(run_id=run.pk, fence=claimed.fence, reason=reason, final=True)


def queued(round: Round) -> list[Run]:
    return list(Run.objects.filter(round_run__round=round, status=Run.Status.QUEUED).order_by("pk"))


def runs_succeed(round: Round, **facts: Any) -> int:
    """Do all queued runs of a round; returns how many there were."""
    waiting = queued(round)
    for run in waiting:
        run_succeed(run, **facts)
    return len(waiting)


def tasks_rank(round: Round, people: Iterable[Membership], *, tied: bool = False) -> int:
    """Every open task of the round is ranked by as many people as it wants; returns rankings."""
    people = list(people)
    count = 0
    for batch in round_ranking_batches(round=round):
        for person in people:
            while (assignment := assignment_next(membership=person, batch=batch)) is not None:
                ranking_submit(assignment=assignment, tiers=tiers_of(assignment.task, tied=tied))
                count += 1
    return count


def tiers_of(task: Task, *, tied: bool = False) -> list[list[str]]:
    uids = [one.candidate.uid for one in task.task_candidates.select_related("candidate")]
    return [uids] if tied else [[uid] for uid in uids]


def round_walk(round: Round, people: Iterable[Membership], *, until: str) -> Round:
    """Let everything go well until the round is in the state `until`."""
    for _ in range(60):
        round.refresh_from_db()
        if round.state == until or round.is_ended:
            break
        moved = round_advance(round=round)
        if round.state == until or round.is_ended:
            break
        if round.state == Round.State.ANNOTATING:
            moved = bool(tasks_rank(round, people)) or moved
        moved = bool(runs_succeed(round)) or moved
        assert moved, f"stuck in {round.state}"
    assert round.state == until, f"{round.state}: {round.error}"
    return round


# What each program would write


def _stored(kind: str, files: dict[str, str]) -> Artifact:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        return artifact_store(folder=Path(folder), kind=kind)


def _input(run: Run, role: str) -> Path:
    return artifact_folder(run.inputs.get(role=role).artifact)


def _generate(run: Run) -> tuple[dict[str, Artifact], dict[str, Any]]:
    config = config_load(GenerateConfig, run.config)
    prompts = list(records_read(_input(run, "prompts") / "prompts.jsonl", PromptRecord))
    with tempfile.TemporaryDirectory() as folder:
        records_write(
            Path(folder, "candidates.jsonl"),
            (
                CandidateRecord(
                    prompt_id=prompt.prompt_id,
                    index=index,
                    text=f"Answer {index} of run {run.pk}.",
                    token_count=6,
                    finish_reason="stop",
                    mean_logprob=-0.5,
                    seed=config.seed + index,
                    temperature=config.temperatures[index % len(config.temperatures)],
                    top_p=config.top_p,
                    top_k=config.top_k,
                    max_tokens=config.max_tokens,
                    engine="a test",
                )
                for prompt in prompts
                for index in range(config.samples)
            ),
        )
        artifact = artifact_store(folder=Path(folder), kind=Artifact.Kind.CANDIDATES)
    return {"candidates": artifact}, {"engine": "a test", "tokens_per_s": 100.0}


def _model(run: Run) -> tuple[dict[str, Artifact], dict[str, Any]]:
    held_out = {"held_out": dict(HELD_OUT)} if run.program == "reward" else {}
    if run.config.get("publish") == "adapter":
        adapter = _stored(Artifact.Kind.ADAPTER, {"weights.txt": run.uid})
        return {"adapter": adapter}, {**MODEL_FACTS, "adapter": "lora", **held_out}
    artifact = _stored(Artifact.Kind.MODEL, {"weights.txt": run.uid})
    return {"model": artifact}, {**MODEL_FACTS, **held_out}


def _rejection(run: Run) -> tuple[dict[str, Artifact], dict[str, Any]]:
    lines = sorted((_input(run, "candidates") / "candidates.jsonl").read_text().splitlines())
    kept = {"demonstrations.jsonl": lines[0] + f"\n{run.uid}\n"}
    return {"demonstrations": _stored(Artifact.Kind.DEMONSTRATIONS, kept)}, {"kept": 1}


def _evaluate(run: Run) -> tuple[dict[str, Artifact], dict[str, Any]]:
    records = [
        SampleRecord(
            prompt_id=one.prompt_id,
            side=side,
            index=one.index,
            text=one.text,
            finish_reason=one.finish_reason,
            tokens=one.token_count,
            reward=reward,
            logprob_after=None,
            logprob_before=None,
            kl=None,
        )
        for side, reward in (("after", 0.4), ("before", 0.1))
        for one in records_read(
            _input(run, f"candidates_{side}") / "candidates.jsonl", CandidateRecord
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        records_write(Path(folder, "samples.jsonl"), records)
        artifact = artifact_store(folder=Path(folder), kind=Artifact.Kind.EVALUATION)
    return {"evaluation": artifact}, dict(EVALUATION)


_WORK = {
    "generate": _generate,
    "reward": _model,
    "sft": _model,
    "ppo": _model,
    "rejection": _rejection,
    "evaluate": _evaluate,
}
