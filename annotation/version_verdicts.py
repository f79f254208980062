"""What people said of two versions whose answers to the same prompts they ranked or chose from.

The hub's comparison of versions asks for it by name (settings.PEOPLE_VERDICTS): it knows no
judgement itself.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from django.contrib.auth.models import User
from django.db.models import Count

from annotation.agreement import wilson_interval
from annotation.models import WORK, Degree, Membership, Submission, Task, TaskCandidate
from annotation.policy import projects_where
from modelhub.models import ModelVersion
from modelhub.selectors.evaluations_compare import PeopleVerdict
from modelhub.version_figures import Figure

MOST_JUDGEMENTS = 2000  # of every two versions, the newest
_KINDS = (Task.Kind.RANKING, Task.Kind.PAIR)
_SCORES = {1: 1.0, 0: 0.5, -1: 0.0}


def version_verdicts(*, versions: Sequence[ModelVersion], user: User) -> list[PeopleVerdict]:
    """For every two of the versions, how often people preferred the second's answers.

    Counted are accepted rankings and pairs that were people's when they were made (not those of
    programs or of a product's users) in projects that the user reviews; each once, by the mean
    place of a version's answers. The interval is Wilson's over prompts, of which each counts once
    however many people judged it. A query for every two, and one.
    """
    places = {version.pk: place for place, version in enumerate(versions)}
    read = {
        (first, second): _judgements((versions[first], versions[second]), user)
        for first, second in combinations(range(len(versions)), 2)
    }
    answers: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task, version, uid in TaskCandidate.objects.filter(
        task__in={one.task_id for judgements in read.values() for one in judgements},
        candidate__version__in=places,
    ).values_list("task", "candidate__version", "candidate__uid"):
        answers[task][places[version]].append(uid)
    verdicts = []
    for (first, second), judgements in read.items():
        by_prompt: dict[int, list[int]] = defaultdict(list)
        for one in judgements[:MOST_JUDGEMENTS]:
            ranks, by_version = _ranks(one), answers[one.task_id]
            before, after = (
                fmean(ranks[uid] for uid in by_version[place]) for place in (first, second)
            )
            by_prompt[one.task.prompt_id].append((before > after) - (before < after))
        if by_prompt:
            is_cut = len(judgements) > MOST_JUDGEMENTS
            verdicts.append(_verdict(versions[first], versions[second], by_prompt, is_cut=is_cut))
    return verdicts


def _judgements(pair: tuple[ModelVersion, ModelVersion], user: User) -> list[Submission]:
    """What people said of tasks with answers of both, newest first, and one more than counts."""
    reviewed = projects_where(user, Membership.Role.REVIEWER)
    shared = (
        TaskCandidate.objects.filter(
            task__in=Task.objects.filter(WORK, project__in=reviewed, kind__in=_KINDS),
            candidate__version__in=pair,
        )
        .order_by()
        .values("task")
        .annotate(versions=Count("candidate__version", distinct=True))
        .filter(versions__gte=2)
        .values("task")
    )
    return list(
        Submission.objects.filter(
            task__in=shared,
            status=Submission.Status.ACCEPTED,
            source=Membership.Source.PERSON,
        )
        .select_related("task", "ranking", "comparison__better", "comparison__worse")
        .order_by("-pk")[: MOST_JUDGEMENTS + 1]
    )


def _ranks(submission: Submission) -> dict[str, int]:
    """Each answer's place, the lower the better; those tied share one."""
    if submission.task.kind == Task.Kind.RANKING:
        tiers = submission.ranking.tiers
        return {uid: place for place, tier in enumerate(tiers) for uid in tier}
    chosen = submission.comparison
    is_worse = chosen.degree != Degree.TIE
    return {chosen.better.uid: 0, chosen.worse.uid: int(is_worse)}


def _verdict(
    before: ModelVersion,
    after: ModelVersion,
    by_prompt: Mapping[int, Sequence[int]],
    *,
    is_cut: bool,
) -> PeopleVerdict:
    outcomes = [one for prompt in by_prompt.values() for one in prompt]
    won = sum(fmean(_SCORES[one] for one in prompt) for prompt in by_prompt.values())
    share = wilson_interval(won, len(by_prompt))
    assert share is not None  # noqa: S101 - there is a prompt, or there were no verdict
    return PeopleVerdict(
        before=before,
        after=after,
        wins=outcomes.count(1),
        ties=outcomes.count(0),
        losses=outcomes.count(-1),
        prompts=len(by_prompt),
        is_cut=is_cut,
        share=Figure(value=share.value, low=share.low, high=share.high),
    )
