"""What is read of campaigns and rounds."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from alignment.models import Campaign, Round
from alignment.recipe import Recipe
from annotation.models import (
    Assignment,
    CandidateBatch,
    Membership,
    Project,
    Prompt,
    Split,
    Submission,
    Task,
)
from modelhub.models import Alias, ModelVersion, Run


def campaign_policy(*, campaign: Campaign) -> ModelVersion:
    """The version the next round starts from: the champion, or the base before there is one."""
    alias = (
        Alias.objects.select_related("version__model")
        .filter(model=campaign.policy_model, name=campaign.champion_alias)
        .first()
    )
    return alias.version if alias else campaign.base_version


def round_open(*, campaign: Campaign) -> Round | None:
    """The campaign's round that has not ended, if any."""
    return campaign.rounds.exclude(state__in=Round.ENDED).first()


def prompts_select(*, campaign: Campaign, recipe: Recipe, draw: int = 0) -> list[Prompt]:
    """The prompts a round is about: by tag, and up to the limit with each split's share kept.

    What annotators wrote to live models is not among them: it was answered there.
    Which ones a limit leaves is a draw by hash: the same for the same seed and `draw`. Every split
    that has prompts keeps at least two. One query over the project's prompts.
    """
    wanted = set(recipe.prompt_tags)
    found = [
        prompt
        for prompt in campaign.project.prompts.exclude(source__in=Prompt.NEVER_SAMPLED).order_by(
            "id"
        )
        if not wanted or wanted & set(prompt.tags)
    ]
    if not recipe.prompt_limit or len(found) <= recipe.prompt_limit:
        return found

    def lot(prompt: Prompt) -> str:
        text = f"{recipe.seed}:{draw}:{prompt.content_hash}"
        return hashlib.sha256(text.encode()).hexdigest()

    chosen: set[int] = set()
    for split in Split.values:
        side = sorted((prompt for prompt in found if prompt.split == split), key=lot)
        share = round(recipe.prompt_limit * len(side) / len(found))
        chosen |= {prompt.pk for prompt in side[: max(2, share)]}
    return [prompt for prompt in found if prompt.pk in chosen]


def prompt_counts(*, project: Project) -> list[tuple[str, int]]:
    """How many prompts that a round may take lie on each side: (its name, count), in the order
    train … held-out."""
    prompts = project.prompts.exclude(source__in=Prompt.NEVER_SAMPLED)
    counted = dict(prompts.values_list("split").annotate(Count("pk")).order_by())
    return [(str(split.label), counted.get(split.value, 0)) for split in Split]


def prompt_tags(*, project: Project) -> list[tuple[str, int]]:
    """The tags of a project's prompts with how many carry each. One query."""
    counted: Counter[str] = Counter()
    for tags in project.prompts.values_list("tags", flat=True):
        counted.update(set(tags))
    return sorted(counted.items())


def round_ranking_batches(*, round: Round) -> QuerySet[CandidateBatch]:
    """The batches whose candidates people rank in this round, one a lap."""
    return CandidateBatch.objects.filter(
        run__round_run__round=round, purpose=CandidateBatch.Purpose.RANKING
    )


def round_batches_to_ingest(*, round: Round) -> QuerySet[CandidateBatch]:
    """The round's batches whose answers are written and not yet taken in."""
    return CandidateBatch.objects.filter(
        run__round_run__round=round, run__status=Run.Status.SUCCEEDED, ingested_at__isnull=True
    ).order_by("pk")


def round_prompts(*, round: Round, split: str) -> QuerySet[Prompt]:
    """The prompts of one split that the round's candidates answer."""
    batches = round_ranking_batches(round=round)
    return Prompt.objects.filter(
        split=split, pk__in=Prompt.objects.filter(candidates__batch__in=batches).values("pk")
    ).order_by("id")


@dataclass(frozen=True, kw_only=True)
class AnnotationProgress:
    """How far people are with a round's tasks."""

    tasks: int
    wanted: int  # judgements: the sum of the tasks' overlaps
    accepted: int
    simulated: int  # of the accepted ones
    live: int  # assignments somebody has open now
    free: int  # slots that are still handed out

    @property
    def is_complete(self) -> bool:
        return self.tasks > 0 and self.free == 0 and self.live == 0


def round_annotation_progress(*, round: Round) -> AnnotationProgress:
    """Counted over all laps of the round; three queries."""
    tasks = Task.objects.filter(batch__in=round_ranking_batches(round=round))
    sums = tasks.aggregate(
        tasks=Count("pk"),
        wanted=Sum("overlap"),
        free=Sum("slots_free", filter=Q(closed_at__isnull=True)),
    )
    by_program = Q(source__in=Membership.PROGRAMS)
    submissions = Submission.objects.filter(
        task__in=tasks, status=Submission.Status.ACCEPTED
    ).aggregate(accepted=Count("pk"), simulated=Count("pk", filter=by_program))
    live = Assignment.objects.filter(task__in=tasks, state__in=Assignment.HOLDING).count()
    return AnnotationProgress(
        tasks=sums["tasks"],
        wanted=sums["wanted"] or 0,
        free=sums["free"] or 0,
        live=live,
        **submissions,
    )


def run_facts(run: Run | None) -> Mapping[str, Any]:
    """What a run's program reported about its work; empty while it has not succeeded."""
    result = (run.result if run else None) or {}
    facts: Mapping[str, Any] = result.get("result", result)
    return facts


def rounds_to_advance() -> QuerySet[Round]:
    """Open rounds, and ended ones whose tasks are still handed out (a batch that came in late)."""
    late = Task.objects.filter(
        closed_at__isnull=True,
        batch__run__round_run__round__state__in=(
            Round.State.PROMOTED,
            Round.State.REJECTED,
            Round.State.CANCELLED,
        ),
    ).values("batch__run__round_run__round")
    return Round.objects.filter(~Q(state__in=Round.ENDED) | Q(pk__in=late)).order_by("pk")
