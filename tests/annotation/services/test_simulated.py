"""Simulated annotators go through the queue, are marked, and say the same when asked again."""

from itertools import combinations

import pytest
from django.core.management import CommandError, call_command

from annotation.models import Assignment, Membership, Project, Submission, Task
from annotation.selectors import batch_progress
from annotation.services.simulated import simulated_rankings_submit
from annotation.simulated import true_preference
from modelhub.errors import ApplicationError
from tests.builders import make_batch, make_project, make_prompt, make_ranking_task

pytestmark = pytest.mark.django_db
ANSWERS = (
    "A kettle boils water because its coil makes heat. The water takes the heat up until it"
    " turns to steam at a hundred degrees.",
    "Certainly! As an AI I cannot boil.",
    "water water water water water water water water",
    "Heat from the coil warms the kettle's water until bubbles of steam rise all through it and it"
    " boils.",
)


@pytest.fixture
def batch(project: Project):
    batch = make_batch(project)
    for n in range(4):
        prompt = make_prompt(project, f"How does kettle number {n} boil water?")
        make_ranking_task(project, ANSWERS, prompt=prompt, batch=batch, overlap=2)
    return batch


def told(batch) -> set[tuple[str, str, str]]:
    """(annotator, prompt, tiers in answers' indexes): no uid in it."""
    found = set()
    for one in Submission.objects.filter(task__batch=batch).select_related("ranking"):
        index = dict(one.task.task_candidates.values_list("candidate__uid", "candidate__index"))
        tiers = [sorted(index[uid] for uid in tier) for tier in one.ranking.tiers]
        number = one.annotator.user.username.rpartition("-")[2]
        found.add((number, one.task.prompt.messages[0]["content"], str(tiers)))
    return found


def test_every_slot_is_filled_and_every_label_is_marked(project: Project, batch) -> None:
    count = simulated_rankings_submit(project=project, batch=batch, annotators=3, noise=0.5, seed=1)
    assert count == 8
    assert batch_progress(batch=batch).is_complete
    assert set(Submission.objects.values_list("source", "status")) == {("simulated", "accepted")}
    members = Membership.objects.filter(project=project)
    assert all(m.is_simulated and m.role == Membership.Role.ANNOTATOR for m in members)
    for member in members:
        assert not member.user.is_active
        assert not member.user.has_usable_password()


def test_asked_again_there_is_nothing_left(project: Project, batch) -> None:
    simulated_rankings_submit(project=project, batch=batch, annotators=3, noise=0.5, seed=1)
    again = simulated_rankings_submit(project=project, batch=batch, annotators=3, noise=0.5, seed=1)
    assert again == 0
    assert Assignment.objects.count() == 8


def test_without_noise_they_tell_the_true_preference(project: Project, batch) -> None:
    simulated_rankings_submit(project=project, batch=batch, annotators=2, noise=0.0, seed=1)
    for submission in Submission.objects.all():
        place = {uid: n for n, tier in enumerate(submission.ranking.tiers) for uid in tier}
        value = {
            one.candidate.uid: true_preference(
                submission.task.prompt.messages, one.candidate.text, one.candidate.finish_reason
            )
            for one in submission.task.task_candidates.all()
        }
        for a, b in combinations(value, 2):
            if place[a] < place[b]:
                assert value[a] > value[b]


def test_the_same_answers_in_another_project_are_ranked_alike(project: Project, batch) -> None:
    simulated_rankings_submit(project=project, batch=batch, annotators=2, noise=1.0, seed=1)
    other = make_project("Other")
    twin = make_batch(other)
    for task in Task.objects.filter(batch=batch).order_by("-id"):
        prompt = make_prompt(other, task.prompt.messages[0]["content"])
        make_ranking_task(other, ANSWERS, prompt=prompt, batch=twin, overlap=2)
    simulated_rankings_submit(project=other, batch=twin, annotators=2, noise=1.0, seed=1)
    assert told(twin) == told(batch)


def test_another_batch_of_the_project_is_left_alone(project: Project, batch) -> None:
    other = make_ranking_task(project, priority=9)
    simulated_rankings_submit(project=project, batch=batch, annotators=2, noise=0.0, seed=1)
    assert Task.objects.get(pk=other.pk).slots_free == 1


def test_a_batch_of_another_project_is_refused(batch) -> None:
    with pytest.raises(ApplicationError):
        simulated_rankings_submit(
            project=make_project("Other"), batch=batch, annotators=1, noise=0.0, seed=1
        )


def test_the_command_ranks_a_batch(batch, capsys) -> None:
    call_command("simulate_rankings", batch.uid, "--annotators", "2")
    assert capsys.readouterr().out.startswith("8 simulated rankings")
    with pytest.raises(CommandError, match="no batch"):
        call_command("simulate_rankings", "0" * 32)
