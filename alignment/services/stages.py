"""What each stage of a round does.

A stage's function looks at the rows, starts what is missing, and says where the round goes next, or
None while something is still at work. It is called again and again, inside the transaction that
holds the round's row: what it starts is found again by (round, lap, stage, role), so however often
it is called, and wherever a process died, there is one run of each role.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignment.gates import judgement_lost, snapshot_problem, verdict_of
from alignment.ml.configs import RewardConfig
from alignment.models import Evaluation, Round, RoundRun
from alignment.recipe import Recipe, recipe_load
from alignment.selectors.rounds import (
    prompts_select,
    round_annotation_progress,
    round_prompts,
    round_ranking_batches,
    run_facts,
)
from annotation.models import CandidateBatch, PreferenceDataset, Prompt, Split
from annotation.records import RANKINGS_NAME, RankingRecord
from annotation.services.batches import (
    batch_tasks_close,
    candidate_batch_request,
    prompts_store,
)
from annotation.services.datasets import preference_dataset_freeze
from modelhub.ml.configs import GenerateConfig, ProgramConfig
from modelhub.ml.records import records_read
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.versions import version_inputs
from modelhub.services.runs import run_create
from modelhub.services.versions import model_version_register
from modelhub.storage import artifact_folder

State = Round.State
Purpose = CandidateBatch.Purpose


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """Where a round goes next, and why."""

    to: Round.State
    reason: str = ""


class StageError(Exception):
    """A run of the stage failed or was cancelled; the message is the round's error."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A round's snapshot, and why it cannot train a reward model; empty if it can."""

    dataset: PreferenceDataset
    problem: str


class Stage:
    """A round in one of its states, with the ways its function starts work or finds it again."""

    def __init__(self, round: Round, frozen: Frozen | None = None) -> None:
        self.round = round
        self.frozen = frozen
        self.recipe: Recipe = recipe_load(round.recipe)
        self.changed = False  # whether this look wrote anything

    def keep(self, **fields: Any) -> None:
        """Write fields of the round."""
        Round.objects.filter(pk=self.round.pk).update(**fields)
        for name, value in fields.items():
            setattr(self.round, name, value)
        self.changed = True

    def run(
        self, role: str, config: ProgramConfig, inputs: Callable[[], Mapping[str, Artifact]]
    ) -> Run | None:
        """The stage's run of this role, started if it is not there; None until it has succeeded.

        Raises StageError if it has ended otherwise.
        """
        found = self._found(role)
        if found is None:
            run = run_create(
                program=config.PROGRAM,
                config=config,
                inputs=inputs(),
                label=f"{self.round}: {role}",
                requested_by=self.round.started_by,
            )
            self._record(role, run)
            return None
        return found if _has_succeeded(found, role) else None

    def batch(
        self,
        role: str,
        *,
        purpose: CandidateBatch.Purpose,
        version: ModelVersion,
        config: Callable[..., GenerateConfig],
        prompts: Callable[[], Iterable[Prompt]],
        overlap: int = 0,
    ) -> CandidateBatch | None:
        """The stage's candidates of this role, asked for if they are not; None until they are in.

        Raises StageError if their run has ended without them.
        """
        run = self._found(role)
        if run is None:
            batch = candidate_batch_request(
                project=self.round.campaign.project,
                version=version,
                prompts=list(prompts()),
                config=config(seed=self._seed(purpose)),
                purpose=purpose,
                overlap=overlap,
                requested_by=self.round.started_by,
            )
            self._record(role, batch.run)
            return None
        if not _has_succeeded(run, role) or run.batch.ingested_at is None:
            return None
        return run.batch

    def _found(self, role: str) -> Run | None:
        record = (
            RoundRun.objects.select_related("run")
            .filter(round=self.round, lap=self.round.lap, stage=self.round.state, role=role)
            .first()
        )
        return record.run if record else None

    def _record(self, role: str, run: Run) -> None:
        RoundRun.objects.create(
            round=self.round, lap=self.round.lap, stage=self.round.state, role=role, run=run
        )
        self.changed = True

    def _seed(self, purpose: str) -> int:
        """The same for the same recipe; another in each round, lap and purpose."""
        text = f"{self.recipe.seed}:{self.round.number}:{self.round.lap}:{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _has_succeeded(run: Run, role: str) -> bool:
    if run.status == Run.Status.FAILED:
        raise StageError(f"The {run.program} run of {role} failed. {run.error}".strip())
    if run.status == Run.Status.CANCELLED:
        raise StageError(f"The {run.program} run of {role} was cancelled.")
    return run.status == Run.Status.SUCCEEDED


def _output(run: Run, role: str) -> Artifact:
    return run.outputs.select_related("artifact").get(role=role).artifact


def _input(run: Run, role: str) -> Artifact:
    return run.inputs.select_related("artifact").get(role=role).artifact


def _ranking_batch(stage: Stage) -> CandidateBatch | None:
    """This lap's candidates to rank, of all splits: held-out rankings test the reward model."""
    return stage.batch(
        "candidates",
        purpose=Purpose.RANKING,
        version=stage.round.policy_in,
        config=stage.recipe.ranking_config,
        prompts=lambda: prompts_select(
            campaign=stage.round.campaign, recipe=stage.recipe, draw=stage.round.lap
        ),
        overlap=stage.recipe.overlap,
    )


def _batch_keep(stage: Stage, batch: CandidateBatch) -> None:
    """Make the batch the round's. Raises StageError if people could not rank it far enough."""
    tasks = batch.tasks.count()
    before = round_annotation_progress(round=stage.round).accepted
    if tasks == 0 or before + tasks * batch.overlap < stage.recipe.minimum_rankings:
        raise StageError(
            f"{tasks} prompts got answers that differ, which {batch.overlap} people each rank:"
            f" too few for the {stage.recipe.minimum_rankings} rankings the recipe asks for."
            " Start a round with more prompts or higher temperatures."
        )
    stage.keep(batch=batch)


def planned(stage: Stage) -> Arrow | None:
    return Arrow(to=State.SAMPLING)


def sampling(stage: Stage) -> Arrow | None:
    batch = _ranking_batch(stage)
    if batch is None:
        return None
    if stage.round.batch_id is None:
        _batch_keep(stage, batch)
    return Arrow(to=State.ANNOTATING, reason="the candidates are written")


def annotating(stage: Stage) -> Arrow | None:
    round = stage.round
    if round.batch_id is None:  # labels were asked for again: with fresh answers to rank
        batch = _ranking_batch(stage)
        if batch is None:
            return None
        _batch_keep(stage, batch)
    progress = round_annotation_progress(round=round)
    if not progress.is_complete or progress.accepted < stage.recipe.minimum_rankings:
        return None
    return Arrow(to=State.FREEZING, reason=f"all {progress.accepted} rankings are in")


def rankings_freeze(*, round: Round) -> Frozen:
    """End the round's tasks and freeze all rankings of its project.

    Not a part of `freezing`, because it reads every ranking: it is called before the round's row
    is held. Called again over the same rankings it gives the same snapshot.
    """
    for batch in round_ranking_batches(round=round):
        batch_tasks_close(batch=batch)
    dataset = round.dataset or preference_dataset_freeze(
        project=round.campaign.project, created_by=round.started_by
    )
    folder = artifact_folder(dataset.artifact)
    problem = snapshot_problem(
        records_read(folder / RANKINGS_NAME, RankingRecord), recipe_load(round.recipe)
    )
    return Frozen(dataset=dataset, problem=problem)


def freezing(stage: Stage) -> Arrow | None:
    frozen = stage.frozen
    if frozen is None:
        return None
    if stage.round.dataset_id is None:
        stage.keep(dataset=frozen.dataset)
    if frozen.problem:
        return Arrow(to=State.ANNOTATING, reason=f"Labels are asked for: {frozen.problem}.")
    return Arrow(to=State.REWARD, reason=f"frozen as {frozen.dataset}")


def _reward_config(stage: Stage) -> RewardConfig:
    """Tested on held-out answers of the policy it is to judge: those of this round, of all laps."""
    batches = round_ranking_batches(round=stage.round).order_by("pk")
    uids = tuple(batches.values_list("uid", flat=True))
    return replace(stage.recipe.reward_config(), held_out_batches=uids)


def reward(stage: Stage) -> Arrow | None:
    round = stage.round
    dataset = round.dataset
    assert dataset is not None  # noqa: S101 - freezing is walked before
    run = stage.run(
        "reward",
        _reward_config(stage),
        lambda: {"base": round.policy_in.artifact, "rankings": dataset.artifact},
    )
    if run is None:
        return None
    if round.reward_version is None:
        version = model_version_register(
            model=round.campaign.reward_model,
            role=ModelVersion.Role.REWARD,
            artifact=_output(run, stage.recipe.reward_config().output),
            parent=round.policy_in,
            run=run,
            facts=dict(run_facts(run)),
            card=f"Reward model of {round}, trained on {dataset}.",
        )
        stage.keep(reward_version=version)
    lost = judgement_lost(run_facts(run).get("held_out") or {}, stage.recipe)
    if lost:
        return Arrow(to=State.ANNOTATING, reason=f"Labels are asked for: {lost}.")
    return Arrow(to=State.IMPROVING, reason=f"{round.reward_version} is trained")


def improving(stage: Stage) -> Arrow | None:
    round, recipe = stage.round, stage.recipe
    reward_version = round.reward_version
    assert reward_version is not None  # noqa: S101 - reward is walked before
    if recipe.improving == "ppo":
        tuned = _ppo(stage, reward_version, base=round.policy_in.artifact)
    else:
        tuned = _rejection_sampling(stage, reward_version)
        if tuned is not None and recipe.improving == "rejection+ppo":
            tuned = _ppo(stage, reward_version, base=_output(tuned, "model"))
    if tuned is None:
        return None
    if round.policy_out is None:
        last = recipe.sft_config() if recipe.improving == "rejection" else recipe.ppo_config()
        is_adapter = last.output == "adapter"
        version = model_version_register(
            model=round.campaign.policy_model,
            role=ModelVersion.Role.ADAPTER if is_adapter else ModelVersion.Role.POLICY,
            artifact=_output(tuned, last.output),
            parent=round.policy_in,
            run=tuned,
            facts=dict(run_facts(tuned)),
            card=f"Policy of {round}, by {_WAYS[recipe.improving]} with {reward_version}.",
        )
        stage.keep(policy_out=version)
    return Arrow(to=State.EVALUATING, reason=f"{round.policy_out} is trained")


_WAYS = {
    "rejection": "rejection sampling",
    "ppo": "PPO",
    "rejection+ppo": "rejection sampling, then PPO,",
}


def _rejection_sampling(stage: Stage, reward_version: ModelVersion) -> Run | None:
    """The run that fine-tuned the policy on its own best answers; None until it has succeeded."""
    round, recipe = stage.round, stage.recipe
    batch = stage.batch(
        "candidates",
        purpose=Purpose.IMPROVING,
        version=round.policy_in,
        config=recipe.improving_config,
        prompts=lambda: round_prompts(round=round, split=Split.TRAIN),
    )
    if batch is None:
        return None
    selected = stage.run(
        "rejection",
        recipe.rejection_config(),
        lambda: {
            **version_inputs(version=reward_version, role="reward"),
            "prompts": _input(batch.run, "prompts"),
            "candidates": _output(batch.run, "candidates"),
            **(_pool(round) if recipe.pool_earlier_rounds else {}),
        },
    )
    if selected is None:
        return None
    return stage.run(
        "sft",
        recipe.sft_config(),
        lambda: {
            "base": round.policy_in.artifact,
            "demonstrations": _output(selected, "demonstrations"),
        },
    )


def _ppo(stage: Stage, reward_version: ModelVersion, *, base: Artifact) -> Run | None:
    """The run that goes on from `base` by PPO on the round's train prompts; None until it has
    succeeded."""
    return stage.run(
        "ppo",
        stage.recipe.ppo_config(),
        lambda: {
            "base": base,
            **version_inputs(version=reward_version, role="reward"),
            "prompts": prompts_store(prompts=round_prompts(round=stage.round, split=Split.TRAIN)),
        },
    )


def _pool(round: Round) -> dict[str, Artifact]:
    """The bests that earlier rounds of the campaign selected, oldest first."""
    runs = (
        Run.objects.filter(
            program="rejection",
            status=Run.Status.SUCCEEDED,
            round_run__round__campaign=round.campaign,
            round_run__round__number__lt=round.number,
            round_run__round__state__in=(State.PROMOTED, State.REJECTED),
        )
        .order_by("round_run__round__number")
        .distinct()
    )
    return {f"pool_{i}": _output(run, "demonstrations") for i, run in enumerate(runs, start=1)}


def evaluating(stage: Stage) -> Arrow | None:
    round, recipe = stage.round, stage.recipe
    policy_out, reward_version = round.policy_out, round.reward_version
    assert policy_out is not None and reward_version is not None  # noqa: S101 - walked before

    def held_out(role: str, version: ModelVersion) -> CandidateBatch | None:
        return stage.batch(
            role,
            purpose=Purpose.EVALUATING,
            version=version,
            config=recipe.evaluation_sampling_config,
            prompts=lambda: round_prompts(round=round, split=Split.HELD_OUT),
        )

    before = held_out("candidates_before", round.policy_in)
    after = held_out("candidates_after", policy_out)
    if before is None or after is None:
        return None
    run = stage.run(
        "evaluation",
        recipe.evaluate_config(),
        lambda: {
            "before": round.policy_in.artifact,
            **version_inputs(version=policy_out, role="after"),
            **version_inputs(version=reward_version, role="reward"),
            "prompts": _input(before.run, "prompts"),
            "candidates_before": _output(before.run, "candidates"),
            "candidates_after": _output(after.run, "candidates"),
        },
    )
    if run is None:
        return None
    if not Evaluation.objects.filter(round=round).exists():
        Evaluation.objects.create(
            round=round,
            run=run,
            before=round.policy_in,
            after=policy_out,
            metrics=dict(run_facts(run)),
            artifact=_output(run, "evaluation"),
        )
        stage.changed = True
    return Arrow(to=State.DECIDING, reason="the evaluation is done")


def deciding(stage: Stage) -> Arrow | None:
    verdict = verdict_of(stage.round.evaluation.metrics, stage.recipe)
    return Arrow(to=State.PROMOTED if verdict.promote else State.REJECTED, reason=verdict.reason)


STAGE_WORK: dict[str, Callable[[Stage], Arrow | None]] = {
    State.PLANNED: planned,
    State.SAMPLING: sampling,
    State.ANNOTATING: annotating,
    State.FREEZING: freezing,
    State.REWARD: reward,
    State.IMPROVING: improving,
    State.EVALUATING: evaluating,
    State.DECIDING: deciding,
}
