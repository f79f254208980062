"""Evaluations that read some versions: those in which two of them met, and what the others say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import F, Window
from django.db.models.functions import DenseRank
from django.utils.module_loading import import_string
from django.utils.translation import gettext

from modelhub.models import Artifact, ModelVersion, Run, RunInput
from modelhub.selectors.comparison_rows import ComparedRow, figure_text, row_ranked
from modelhub.selectors.naming import NAMED_ARTIFACT, artifact_title
from modelhub.version_figures import Figure, figures_read


@dataclass(frozen=True, kw_only=True)
class Duel:
    """An evaluation in which two of the versions met: `after` as it stands beside `before`."""

    run: Run
    before: ModelVersion
    after: ModelVersion
    figures: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation's run with the artifacts it read, by role, and its figures."""

    run: Run
    given: Mapping[str, Artifact]
    figures: Mapping[str, Figure]

    def side_of(self, version: ModelVersion) -> str:
        """ "before", "after", or "" where it did not read the version."""
        for side in ("after", "before"):
            if side in self.given and self.given[side].pk == version.artifact_id:
                return side
        return ""


@dataclass(frozen=True, kw_only=True)
class PeopleVerdict:
    """What people said of two versions' answers to the same prompts, from `after`'s side."""

    before: ModelVersion
    after: ModelVersion
    wins: int  # judgements that prefer its answers
    ties: int
    losses: int
    prompts: int
    share: Figure  # of prompts won, a tie as half, with its interval
    is_cut: bool  # whether there are older judgements, which do not count

    @property
    def judgements(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def share_text(self) -> str:
        """As "62.5 % [14.2, 94.4]"."""
        told = f"{100 * self.share.value:.1f} %"
        if self.share.low is None or self.share.high is None:
            return told
        return f"{told} [{100 * self.share.low:.1f}, {100 * self.share.high:.1f}]"


def people_verdicts(*, versions: Sequence[ModelVersion], user: User) -> list[PeopleVerdict]:
    """What the app that settings.PEOPLE_VERDICTS names has of people's judgements that the user may
    know of. The queries are that app's."""
    found: list[PeopleVerdict] = import_string(settings.PEOPLE_VERDICTS)(
        versions=versions, user=user
    )
    return found


def evaluations_of(versions: Sequence[ModelVersion], limit: int = 50) -> list[Evaluation]:
    """The newest evaluations that succeeded of each of the versions, newest first.

    limit: of each, so that none is crowded out by one that is evaluated again and again. A constant
    number of queries.
    """
    read = RunInput.objects.filter(
        role__in=("before", "after"),
        artifact__in={version.artifact_id for version in versions},
        run__program="evaluate",
        run__status=Run.Status.SUCCEEDED,
    )
    place = Window(DenseRank(), partition_by=F("artifact"), order_by=F("run").desc())
    newest = read.annotate(place=place).filter(place__lte=limit).values_list("run", flat=True)
    runs = (
        Run.objects.filter(pk__in=set(newest))
        .prefetch_related(*(f"inputs__artifact__{one}" for one in NAMED_ARTIFACT))
        .order_by("-pk")
    )
    return [
        Evaluation(
            run=run,
            given={one.role: one.artifact for one in run.inputs.all()},
            figures=figures_read(run.result or {}),
        )
        for run in runs
    ]


def duels_of(versions: Sequence[ModelVersion], evaluations: Sequence[Evaluation]) -> list[Duel]:
    """The newest evaluation of every two of them."""
    by_artifact = {version.artifact_id: version for version in versions}
    found: dict[tuple[int, int], Duel] = {}
    for one in evaluations:
        sides = [one.given[side].pk for side in ("before", "after") if side in one.given]
        if len(sides) != 2 or sides[0] == sides[1] or not set(sides) <= by_artifact.keys():
            continue
        labels = {
            "win_rate": gettext("win rate"),
            "reward_difference": gettext("reward, after minus before"),
            "kl_per_answer_nats": gettext("KL, nats an answer"),
        }
        figures = [
            (label, figure_text(_kl_bounded(one.figures, name)))
            for name, label in labels.items()
            if name in one.figures
        ]
        before, after = (by_artifact[side] for side in sides)
        duel = Duel(run=one.run, before=before, after=after, figures=figures)
        found.setdefault((sides[0], sides[1]), duel)
    return list(found.values())


def _kl_bounded(figures: Mapping[str, Figure], name: str) -> Figure:
    """A figure; KL an answer names its unit, and its bounds do not."""
    figure = figures[name]
    low, high = figures.get("kl_per_answer_low"), figures.get("kl_per_answer_high")
    if name != "kl_per_answer_nats" or low is None or high is None:
        return figure
    return Figure(value=figure.value, low=low.value, high=high.value)


def evaluation_rows(
    versions: Sequence[ModelVersion], evaluations: Sequence[Evaluation]
) -> list[ComparedRow]:
    """Win rates over versions that are not among these, and mean rewards, each by one reward model
    on the same prompts; the newest evaluation of each counts."""
    compared = {version.artifact_id for version in versions}
    rows: dict[tuple[Any, ...], dict[int, Figure]] = {}
    labels: dict[tuple[Any, ...], str] = {}
    for one in evaluations:
        reward, prompts = one.given.get("reward"), one.given.get("prompts")
        if reward is None or prompts is None:
            continue
        judged = {"reward": artifact_title(reward), "prompts": prompts.sha256[:8]}
        for place, version in enumerate(versions):
            side = one.side_of(version)
            mean = one.figures.get(f"reward_{side}")
            if mean is not None:
                key: tuple[Any, ...] = ("reward", reward.pk, prompts.pk)
                rows.setdefault(key, {}).setdefault(place, mean)
                labels[key] = gettext("mean reward by %(reward)s, prompts %(prompts)s") % judged
            other = one.given.get("before" if side == "after" else "after")
            won = one.figures.get("win_rate")
            if not side or other is None or won is None or other.pk in compared:
                continue
            key = ("win", other.pk, reward.pk, prompts.pk)
            rows.setdefault(key, {}).setdefault(place, won if side == "after" else _lost(won))
            labels[key] = gettext("win rate over %(other)s by %(reward)s, prompts %(prompts)s") % {
                "other": artifact_title(other),
                **judged,
            }
    return [
        row_ranked(
            labels[key],
            [found.get(place) for place in range(len(versions))],
            more_is_better=True,
        )
        for key, found in sorted(rows.items(), key=lambda row: row[0][0] != "win")
    ]


def _lost(won: Figure) -> Figure:
    """The other side's win rate: ties count half, so it is what is left of one."""
    return Figure(
        value=1 - won.value,
        low=None if won.high is None else 1 - won.high,
        high=None if won.low is None else 1 - won.low,
    )
