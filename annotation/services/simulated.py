"""Programs that rank, through the same door as people and always marked as programs."""

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import Assignment, CandidateBatch, Membership, Project, Task, TaskCandidate
from annotation.services.assignments import assignment_next
from annotation.services.projects import membership_add
from annotation.services.rankings import ranking_submit
from annotation.simulated import ranking_noisy, spread_within, true_preference
from modelhub.errors import ApplicationError

RATIONALE = "Ranked by a simulated annotator: see annotation/simulated.py."


def simulated_rankings_submit(
    *, project: Project, batch: CandidateBatch, annotators: int, noise: float, seed: int
) -> int:
    """Let simulated annotators rank the open tasks of a batch; returns how many rankings they sent.

    Each ranks by `true_preference` with noise (a standard deviation of `noise` spreads, the spread
    being that of the answers to one prompt). The noise belongs to (seed, annotator, prompt,
    sample), so the same answers are ranked alike whenever and wherever. Cut off, it goes on where
    it was: each ranking is a transaction of its own.
    """
    if not 1 <= annotators <= 100 or noise < 0:
        raise ApplicationError(gettext("Wanted 1 to 100 annotators and a noise of at least 0."))
    if batch.project_id != project.pk:
        raise ApplicationError(
            gettext("%(batch)s is not of %(project)s.") % {"batch": batch, "project": project},
            {"field": "batch"},
        )
    preferences = _preferences(batch)
    spread = spread_within([list(one.values()) for one in preferences.values()])
    count = 0
    working = {n: _membership_ensure(project, n) for n in range(1, annotators + 1)}
    while working:
        for number, membership in list(working.items()):
            assignment = assignment_next(membership=membership, batch=batch)
            if assignment is None:
                del working[number]
                continue
            tiers, unacceptable = _judge(
                assignment,
                preferences[assignment.task_id],
                spread=spread,
                noise=noise,
                seed=f"{seed}:{number}",
            )
            ranking_submit(
                assignment=assignment,
                tiers=tiers,
                unacceptable=unacceptable,
                rationale=RATIONALE,
            )
            count += 1
    return count


def _preferences(batch: CandidateBatch) -> dict[int, dict[int, float]]:
    """The true preference of every answer, by task and by the answer's index. One query."""
    found: dict[int, dict[int, float]] = {}
    members = TaskCandidate.objects.filter(task__batch=batch, task__kind=Task.Kind.RANKING)
    for task_id, messages, index, text, finish_reason in members.values_list(
        "task_id",
        "task__prompt__messages",
        "candidate__index",
        "candidate__text",
        "candidate__finish_reason",
    ):
        found.setdefault(task_id, {})[index] = true_preference(messages, text, finish_reason)
    return found


def _judge(
    assignment: Assignment, preferences: dict[int, float], *, spread: float, noise: float, seed: str
) -> tuple[list[list[str]], list[str]]:
    """A ranking in candidate uids. Noise goes by the prompt's text and the sample's index."""
    task = assignment.task
    uids = dict(task.task_candidates.values_list("candidate__index", "candidate__uid"))
    tiers, unacceptable = ranking_noisy(
        {str(index): value for index, value in preferences.items()},
        spread=spread,
        noise=noise,
        seed=f"{seed}:{task.prompt.content_hash}",
    )
    return (
        [[uids[int(index)] for index in tier] for tier in tiers],
        [uids[int(index)] for index in unacceptable],
    )


@transaction.atomic
def _membership_ensure(project: Project, number: int) -> Membership:
    """A simulated annotator: an account that nobody can sign in to, marked in its membership."""
    name = f"simulated-{project.uid[:12]}-{number}"
    user, created = User.objects.get_or_create(username=name, defaults={"is_active": False})
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return membership_add(
        project=project,
        user=user,
        role=Membership.Role.ANNOTATOR,
        source=Membership.Source.SIMULATED,
    )
