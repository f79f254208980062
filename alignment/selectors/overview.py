"""What the pages of rounds show: where a round is, what its stages did, what it came to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from alignment.gates import figure_mean
from alignment.models import Campaign, Evaluation, Round, RoundRun, StageEvent
from alignment.recipe import STAGES, Recipe, recipe_load
from alignment.records import SampleRecord
from alignment.selectors.rounds import (
    AnnotationProgress,
    round_annotation_progress,
    run_facts,
)
from annotation.models import Candidate, Prompt
from annotation.policy import Person, projects_managed
from modelhub.ml.records import records_read
from modelhub.models import ModelVersion, Run, RunMetric
from modelhub.storage import artifact_folder

State = Round.State

STAGE_TITLES = {
    "planned": _("Planned"),
    "sampling": _("Sampling"),
    "annotating": _("Annotating"),
    "freezing": _("Freezing"),
    "reward": _("Reward model"),
    "improving": _("Improving"),
    "evaluating": _("Evaluating"),
    "deciding": _("Deciding"),
}
RUN_TITLES = {
    ("sampling", "candidates"): _("Writes the answers people rank"),
    ("annotating", "candidates"): _("Writes fresh answers to rank"),
    ("reward", "reward"): _("Trains the reward model"),
    ("improving", "candidates"): _("Draws fresh answers to choose from"),
    ("improving", "rejection"): _("Scores them and keeps the best"),
    ("improving", "sft"): _("Fine-tunes the policy on the best"),
    ("improving", "ppo"): _("Improves the policy by PPO"),
    ("evaluating", "candidates_before"): _("The old policy answers held-out prompts"),
    ("evaluating", "candidates_after"): _("The new policy answers held-out prompts"),
    ("evaluating", "evaluation"): _("Compares the two"),
}
# The metric of a training run that its small curve shows.
_CURVES = ("loss", "train_loss", "objective/scores")


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run of a stage, with its small curve: (step, value) points, oldest first."""

    run: Run
    role: str
    title: str
    lap: int
    seconds: float | None  # it took; None while it has not ended
    curve_name: str
    curve: list[tuple[int, float]]
    can_cancel: bool
    can_retry: bool


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage as the track and its card show it."""

    name: str
    title: str
    standing: str  # "done", "now", "failed", "cancelled" or "todo"
    entered_at: datetime | None
    seconds: float | None  # spent in it, over all visits; None if never entered
    runs: list[RunView]


@dataclass(frozen=True, kw_only=True)
class RoundOverview:
    """Everything the live part of a round's page shows."""

    round: Round
    recipe: Recipe
    stages: list[StageView]
    events: list[StageEvent]
    progress: AnnotationProgress
    rankers: int  # members of the project, all of whom may rank
    waits_for_person: bool
    held_out: Mapping[str, Any]  # of the newest reward model; empty before there is one
    evaluation: Evaluation | None

    @property
    def now(self) -> StageView | None:
        return next((stage for stage in self.stages if stage.standing == "now"), None)


def round_overview(*, round: Round) -> RoundOverview:
    """About ten queries, whatever the size of the round, and one for each training run's curve."""
    recipe = recipe_load(round.recipe)
    events = list(round.events.select_related("actor"))
    progress = round_annotation_progress(round=round)
    links = list(round.round_runs.select_related("run").order_by("lap", "id"))
    trained = next((link.run for link in reversed(links) if link.role == "reward"), None)
    return RoundOverview(
        round=round,
        recipe=recipe,
        stages=_stages(round, events, links),
        events=events,
        progress=progress,
        rankers=round.campaign.project.memberships.filter(removed_at=None).count(),
        waits_for_person=_waits_for_person(round, recipe, progress),
        held_out=run_facts(trained).get("held_out") or {},
        evaluation=Evaluation.objects.filter(round=round)
        .select_related("before__model", "after__model")
        .first(),
    )


def _stages(round: Round, events: list[StageEvent], links: list[RoundRun]) -> list[StageView]:
    entered: dict[str, datetime] = {State.PLANNED.value: round.created_at}
    seconds: dict[str, float] = {}
    state, since = State.PLANNED.value, round.created_at
    for event in events:
        seconds[state] = seconds.get(state, 0) + (event.created_at - since).total_seconds()
        state, since = event.after, event.created_at
        entered[state] = since
    if not round.is_ended:
        seconds[state] = seconds.get(state, 0) + (timezone.now() - since).total_seconds()
    # A round that failed or was cancelled stands where it was then.
    stopped = round.failed_in or (events[-1].before if events else "planned")
    if stopped not in STAGES:
        stopped = _failed_before(events)
    here = round.state if round.state in STAGES else stopped
    standing_here = {State.FAILED: "failed", State.CANCELLED: "cancelled"}.get(
        State(round.state), "now"
    )
    is_over = round.state in (State.PROMOTED, State.REJECTED)
    views = []
    for place, name in enumerate(STAGES):
        if is_over or place < STAGES.index(here):
            standing = "done"
        else:
            standing = standing_here if name == here else "todo"
        views.append(
            StageView(
                name=name,
                title=str(STAGE_TITLES[name]),
                standing=standing,
                entered_at=entered.get(name),
                seconds=seconds.get(name),
                runs=[_run_view(round, link) for link in links if link.stage == name],
            )
        )
    return views


def _failed_before(events: list[StageEvent]) -> str:
    """The stage of a round that was cancelled after it had failed."""
    return next((e.before for e in reversed(events) if e.before in STAGES), "planned")


def _run_view(round: Round, link: RoundRun) -> RunView:
    run = link.run
    is_here = (link.lap, link.stage) == (round.lap, round.failed_in or round.state)
    name, curve = run_curve(run=link.run)
    return RunView(
        run=link.run,
        role=link.role,
        title=str(RUN_TITLES.get((link.stage, link.role), link.role)),
        lap=link.lap,
        seconds=(
            (link.run.ended_at - link.run.started_at).total_seconds()
            if link.run.ended_at and link.run.started_at
            else None
        ),
        curve_name=name,
        curve=curve,
        can_cancel=not run.is_ended and run.cancel_requested_at is None,
        can_retry=is_here and run.status in (Run.Status.FAILED, Run.Status.CANCELLED),
    )


def run_curve(*, run: Run) -> tuple[str, list[tuple[int, float]]]:
    """The loss of a training run, at most some 200 points of it; ("", []) for other runs."""
    if run.program not in ("reward", "sft"):
        return "", []
    for name in _CURVES:
        points = list(
            RunMetric.objects.filter(run=run, name=name)
            .order_by("step")
            .values_list("step", "value")
        )
        if points:
            return name, points[:: max(1, len(points) // 200)]
    return "", []


def _waits_for_person(round: Round, recipe: Recipe, progress: AnnotationProgress) -> bool:
    """Whether the stage's work is done and a human gate keeps the round there."""
    if round.state not in recipe.human_gates:
        return False
    done = {
        State.PLANNED: True,
        State.SAMPLING: round.batch_id is not None,
        State.ANNOTATING: progress.is_complete and progress.accepted >= recipe.minimum_rankings,
        State.FREEZING: round.dataset_id is not None,
        State.REWARD: round.reward_version_id is not None,
        State.IMPROVING: round.policy_out_id is not None,
        State.EVALUATING: Evaluation.objects.filter(round=round).exists(),
        State.DECIDING: True,
    }
    return done[State(round.state)]


# Figures of an evaluation


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One line of the evaluation's table; a figure is a number, or {"mean", "low", "high"}."""

    label: str
    before: Any
    after: Any
    difference: Any
    form: str  # how its numbers are written: "score", "share", "tokens"


_FIGURES = (
    (_("Reward"), "reward", "score"),
    (_("Length, tokens"), "length", "tokens"),
    (_("Finished by itself"), "finished", "share"),
    (_("Repeats itself"), "repetition", "share"),
    (_("Different token pairs"), "distinct_2", "share"),
    (_("Log-probability per token"), "mean_logprob", "score"),
)


def evaluation_rows(*, metrics: Mapping[str, Any]) -> list[FigureRow]:
    """The figures that were taken of both policies."""
    return [
        FigureRow(
            label=str(label),
            before=metrics.get(f"{name}_before"),
            after=metrics.get(f"{name}_after"),
            difference=_difference(metrics, name),
            form=form,
        )
        for label, name, form in _FIGURES
        if f"{name}_after" in metrics
    ]


def _difference(metrics: Mapping[str, Any], name: str) -> Any:
    """The paired difference with its interval where it was taken, else that of the two figures."""
    if f"{name}_difference" in metrics:
        return metrics[f"{name}_difference"]
    before, after = metrics.get(f"{name}_before"), metrics.get(f"{name}_after")
    return None if before is None or after is None else figure_mean(after) - figure_mean(before)


@dataclass(frozen=True, kw_only=True)
class RoundFigures:
    """What one decided round came to, for the campaign's chart."""

    round: Round
    reward: Mapping[str, float]  # the paired difference: mean, low, high
    kl: float  # nats per answer


def campaign_figures(*, campaign: Campaign) -> list[RoundFigures]:
    """The evaluated rounds, oldest first. One query."""
    found = Evaluation.objects.filter(round__campaign=campaign).select_related("round")
    return [
        RoundFigures(
            round=evaluation.round,
            reward=evaluation.metrics["reward_difference"],
            kl=evaluation.metrics["kl_per_answer_nats"],
        )
        for evaluation in found.order_by("round__number")
    ]


# Samples side by side


@dataclass(frozen=True, kw_only=True)
class Sample:
    record: SampleRecord
    candidate: str  # uid; empty if its row is gone


@dataclass(frozen=True, kw_only=True)
class SamplePair:
    """A held-out prompt with what each policy answered, best first."""

    prompt: Prompt
    before: list[Sample]
    after: list[Sample]
    difference: float  # of the mean rewards


def evaluation_samples(*, evaluation: Evaluation) -> list[SamplePair]:
    """The evaluation's answers by prompt, the largest change first.

    Reads the artifact's samples.jsonl (held-out prompts alone: some hundred lines) and two queries.
    """
    path = artifact_folder(evaluation.artifact) / "samples.jsonl"
    rows: dict[str, dict[str, list[SampleRecord]]] = {}
    for record in records_read(path, SampleRecord):
        sides = rows.setdefault(record.prompt_id, {"before": [], "after": []})
        sides[record.side].append(record)
    prompts = {
        prompt.uid: prompt
        for prompt in Prompt.objects.filter(
            project=evaluation.round.campaign.project_id, uid__in=rows
        )
    }
    uids = _candidate_uids(evaluation)
    pairs = [
        _sample_pair(prompts[prompt], sides, uids)
        for prompt, sides in rows.items()
        if prompt in prompts
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.difference))


def _candidate_uids(evaluation: Evaluation) -> dict[tuple[str, str, int], str]:
    """(side, prompt uid, index) → candidate uid."""
    links = RoundRun.objects.filter(
        round=evaluation.round, role__in=("candidates_before", "candidates_after")
    )
    sides = {link.run_id: link.role.removeprefix("candidates_") for link in links}
    candidates = Candidate.objects.filter(batch__run__in=sides).values_list(
        "batch__run_id", "prompt__uid", "index", "uid"
    )
    return {(sides[run], prompt, index): uid for run, prompt, index, uid in candidates}


def _sample_pair(
    prompt: Prompt,
    sides: Mapping[str, list[SampleRecord]],
    uids: Mapping[tuple[str, str, int], str],
) -> SamplePair:
    samples = {
        side: [
            Sample(record=record, candidate=uids.get((side, prompt.uid, record.index), ""))
            for record in sorted(records, key=lambda record: -record.reward)
        ]
        for side, records in sides.items()
    }
    return SamplePair(
        prompt=prompt,
        before=samples["before"],
        after=samples["after"],
        difference=fmean(one.reward for one in sides["after"])
        - fmean(one.reward for one in sides["before"]),
    )


# Campaigns


def campaigns_of(*, user: Person) -> QuerySet[Campaign]:
    """The campaigns of the projects the person manages, with their rounds. Two queries."""
    rounds = Round.objects.order_by("-number")
    return (
        Campaign.objects.filter(project__in=projects_managed(user))
        .select_related("project", "base_version__model", "policy_model")
        .prefetch_related(Prefetch("rounds", queryset=rounds))
    )


def campaign_rounds(*, campaign: Campaign) -> QuerySet[Round]:
    """Newest first, with what each started from and made."""
    return campaign.rounds.select_related(
        "policy_in__model", "policy_out__model", "reward_version__model", "dataset", "started_by"
    ).order_by("-number")


@dataclass(frozen=True, kw_only=True)
class PolicyStep:
    """A version of the campaign's line, and the round that made it; none for the base."""

    version: ModelVersion
    round: Round | None
    is_champion: bool


def campaign_line(*, campaign: Campaign, champion: ModelVersion) -> list[PolicyStep]:
    """From the base to the newest policy: what each version was made from, oldest first."""
    made = {
        round.policy_out_id: round
        for round in campaign_rounds(campaign=campaign)
        if round.policy_out_id is not None
    }
    versions = ModelVersion.objects.select_related("model", "parent__model").filter(
        pk__in=[campaign.base_version_id, *made]
    )
    return [
        PolicyStep(
            version=version, round=made.get(version.pk), is_champion=version.pk == champion.pk
        )
        for version in versions.order_by("pk")
    ]


def campaign_moves(*, campaign: Campaign) -> Iterator[Any]:
    """The champion alias's moves, newest first."""
    alias = campaign.policy_model.aliases.filter(name=campaign.champion_alias).first()
    if alias is not None:
        yield from alias.moves.select_related("before__model", "after__model", "actor").order_by(
            "-id"
        )
