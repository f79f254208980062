"""T28: after a long history drawn by lot, every count of the same thing is the same."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from django.db.models import Count, Q
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Membership, Project, Review, Submission, Task
from annotation.selectors.tasks import task_counts
from annotation.services.assignments import (
    assignment_next,
    assignment_skip,
    assignments_expire,
    draft_save,
)
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.rankings import ranking_submit
from annotation.services.reviews import review_submit
from annotation.services.submissions import submission_undo
from modelhub.errors import ApplicationError
from tests.annotation.judging import uids_of
from tests.builders import make_member, make_ranking_task

STEPS, TASKS, OVERLAP, PEOPLE = 250, 25, 3, 6


class History:
    """What people do at one queue, one thing after the other."""

    def __init__(self, project: Project, seed: int) -> None:
        self.draw = random.Random(seed)
        self.people = [make_member(project, f"p{number}") for number in range(PEOPLE)]
        self.reviewers = [
            make_member(project, f"r{number}", Membership.Role.REVIEWER) for number in range(2)
        ]
        self.project = project

    def one(self, **given: object) -> Assignment | None:
        found = Assignment.objects.filter(task__project=self.project, **given).order_by("pk")
        return self.draw.choice(found) if found else None

    def next(self) -> None:
        assignment_next(membership=self.draw.choice(self.people))

    def submit(self) -> None:
        """What somebody holds, or held, or has sent before: also late, also again."""
        if assignment := self.one():
            uids = uids_of(assignment.task)
            self.draw.shuffle(uids)
            ranking_submit(assignment=assignment, tiers=[[uid] for uid in uids])

    def skip(self) -> None:
        if assignment := self.one():
            assignment_skip(assignment=assignment, reason="no")

    def draft(self) -> None:
        if assignment := self.one():
            draft_save(assignment=assignment, draft={}, sequence=self.draw.randint(1, 99))

    def undo(self) -> None:
        if assignment := self.one(state="submitted"):
            submission_undo(assignment=assignment)

    def lapse(self) -> None:
        if assignment := self.one(state="live"):
            past = timezone.now() - timedelta(hours=1)
            Assignment.objects.filter(pk=assignment.pk).update(lease_until=past)
            if self.draw.random() < 0.5:
                assignments_expire()

    def review(self) -> None:
        submissions = Submission.objects.filter(task__project=self.project).order_by("pk")
        if submissions:
            review_submit(
                submission=self.draw.choice(submissions),
                reviewer=self.draw.choice(self.reviewers),
                verdict=self.draw.choice(Review.Verdict.values),
                reason="so",
            )

    def live(self, steps: int) -> Counter[str]:
        """Do so many things. Returns how often each was done and not refused."""
        done: Counter[str] = Counter()
        acts = [self.next, self.submit, self.skip, self.draft, self.undo, self.lapse, self.review]
        for _ in range(steps):
            (act,) = self.draw.choices(acts, weights=[6, 6, 1, 1, 1, 1, 2])
            try:
                act()
            except ApplicationError:
                continue
            done[act.__name__] += 1
        return done


@pytest.mark.parametrize("seed", range(2))
def test_after_any_history_all_figures_agree(project: Project, seed: int) -> None:
    for _ in range(TASKS):
        make_ranking_task(project, ("a", "b"), overlap=OVERLAP)
    done = History(project, seed).live(STEPS)
    assert len(done) == 7 and min(done.values()) > 0, done
    held = Count("assignments", filter=Q(assignments__state__in=Assignment.HOLDING))
    for task in Task.objects.filter(project=project).annotate(held=held):
        kept = task.submissions.filter(status="accepted").count()
        assert task.slots_free + task.held + kept == OVERLAP, task.pk
        assert task.slots_free >= 0
    submissions = Submission.objects.filter(task__project=project)
    by_status = Counter(submissions.values_list("status", flat=True))
    assert by_status.total() == submissions.count()
    assert submissions.values("task", "annotator").distinct().count() == submissions.count()
    dataset = preference_dataset_freeze(project=project, created_by=None)
    counts = dataset.counts
    assert counts["total"] == counts["used"] + sum(counts["excluded"].values())
    assert counts["total"] == submissions.count()
    assert counts["used"] == by_status["accepted"]
    (rankings,) = [one for one in task_counts(project=project) if one.kind == "ranking"]
    assert rankings.tasks == TASKS
    assert rankings.judged == by_status["accepted"]
    exported_and_told(project, dataset.uid, counts["used"])


def exported_and_told(project: Project, dataset_uid: str, used: int) -> None:
    """The export, the API and the dataset's page all say so many."""
    client = Client()
    client.force_login(make_member(project, "boss", Membership.Role.MANAGER).user)
    base = f"/api/v1/projects/{project.uid}/datasets/"
    (told,) = client.get(base).json()
    assert told["counts"]["used"] == used
    answer = client.get(f"{base}{dataset_uid}/export/", {"layout": "rankings"})
    assert b"".join(answer.streaming_content).count(b"\n") == used
    assert f"{used}" in client.get(f"/datasets/{dataset_uid}/").content.decode()
