"""People's rankings and pairs of two versions' answers, counted for the hub's comparison."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Candidate, Membership, Project, Submission, Task
from annotation.services.assignments import assignment_next
from annotation.services.pairs import pair_submit
from annotation.services.rankings import ranking_submit
from annotation.version_verdicts import version_verdicts
from modelhub.models import ModelVersion
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def versions() -> list[ModelVersion]:
    return [builders.make_version(name) for name in ("before", "after")]


def task_of(project: Project, kind: str, versions: list[ModelVersion], prompt=None) -> Task:
    """A task whose answers are the versions' by turns."""
    texts = ("One.", "Two.") if kind == "pair" else ("One.", "Two.", "Three.")
    task = builders.make_task(project, kind, texts, prompt=prompt, overlap=3)
    for one in task.task_candidates.order_by("position"):
        version = versions[one.position % 2]
        Candidate.objects.filter(pk=one.candidate_id).update(version=version)
    return task


def uids(task: Task) -> list[str]:
    return list(task.task_candidates.order_by("position").values_list("candidate__uid", flat=True))


@pytest.fixture
def judged(project: Project, versions: list[ModelVersion]) -> None:
    """Two win for `after`, one tie, one loss, on two prompts; a program's word besides."""
    alice, bob = (builders.make_member(project, name) for name in ("ann", "ben"))
    robot = builders.make_member(project, "robot", simulated=True)
    pair = task_of(project, "pair", versions)
    first, second = uids(pair)
    for member, better, degree in ((alice, second, 4), (bob, None, 0), (robot, first, 4)):
        given = assignment_next(membership=member)
        pair_submit(assignment=given, better=better, degree=degree)
    ranking = task_of(project, "ranking", versions)
    one, two, three = uids(ranking)  # one and three are of `before`
    for member, tiers in ((alice, [[two], [one, three]]), (bob, [[one], [three], [two]])):
        ranking_submit(assignment=assignment_next(membership=member), tiers=tiers)


def test_wins_ties_and_losses_are_counted_with_their_interval(
    project: Project, versions: list[ModelVersion], judged: None, django_assert_num_queries
) -> None:
    root = builders.make_user("root", is_superuser=True)
    with django_assert_num_queries(2):
        (verdict,) = version_verdicts(versions=versions, user=root)
    assert (verdict.before, verdict.after) == tuple(versions)
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.prompts) == (2, 1, 1, 2)
    # By prompt: (1 + 1/2) / 2 and (1 + 0) / 2, of two prompts 1.25; Wilson's interval by hand:
    # centre (0.625 + 3.8415/4) / (1 + 3.8415/2) = 0.5428, half 0.4011.
    assert verdict.share.value == pytest.approx(0.625)
    assert verdict.share.low == pytest.approx(0.1417, abs=1e-3)
    assert verdict.share.high == pytest.approx(0.9439, abs=1e-3)


def test_only_projects_that_one_reviews_count(
    versions: list[ModelVersion], judged: None, bob: User, alice: User, eve: User
) -> None:
    for other in (eve, alice):  # an engineer who is no member, and an annotator
        assert version_verdicts(versions=versions, user=other) == []
    assert len(version_verdicts(versions=versions, user=bob)) == 1


def test_the_page_and_the_api_say_it(
    project: Project, versions: list[ModelVersion], judged: None, eve: User, signed_in
) -> None:
    asked = {"version": [one.uid for one in versions]}
    client = signed_in(eve)
    assert "What people said" not in client.get(reverse("version_compare"), asked).content.decode()
    Membership.objects.create(project=project, user=eve, role=Membership.Role.REVIEWER)
    page = client.get(reverse("version_compare"), asked).content.decode()
    assert (
        "What people said" in page and "2 / 1 / 1" in page and "4 judgements of 2 prompts" in page
    )
    assert "62.5 % [14.2, 94.4]" in page
    (told,) = client.get(reverse("api_version_compare"), asked).json()["people"]
    assert (told["wins"], told["ties"], told["losses"], told["prompts"]) == (2, 1, 1, 2)
    assert told["before"] == versions[0].uid and told["share"] == 0.625


def test_whose_it_was_when_it_was_made_decides(
    versions: list[ModelVersion], judged: None, bob: User
) -> None:
    """Ann is a program and the robot a person, since they judged."""
    for name, source in (("ann", "simulated"), ("robot", "person")):
        Membership.objects.filter(user__username=name).update(source=source)
    (verdict,) = version_verdicts(versions=versions, user=bob)
    assert (verdict.wins, verdict.ties, verdict.losses) == (2, 1, 1)
    Submission.objects.filter(annotator__user__username="ann").update(source="product")
    (verdict,) = version_verdicts(versions=versions, user=bob)
    assert (verdict.wins, verdict.ties, verdict.losses) == (0, 1, 1)


def test_a_pair_that_is_judged_much_crowds_out_no_other(
    project: Project,
    versions: list[ModelVersion],
    judged: None,
    eve: User,
    signed_in,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two judgements of another pair are the newest; of the first the newest two count of four."""
    other = builders.make_version("other")
    task_of(project, "pair", [versions[0], other])
    for name in ("ann", "ben"):
        membership = Membership.objects.get(user__username=name)
        pair_submit(assignment=assignment_next(membership=membership), better=None, degree=0)
    monkeypatch.setattr("annotation.version_verdicts.MOST_JUDGEMENTS", 2)
    Membership.objects.create(project=project, user=eve, role=Membership.Role.REVIEWER)
    first, second = version_verdicts(versions=[*versions, other], user=eve)
    assert (first.after, first.wins, first.ties, first.losses) == (versions[1], 1, 0, 1)
    assert (second.after, second.wins, second.ties, second.losses) == (other, 0, 2, 0)
    assert (first.is_cut, second.is_cut) == (True, False)
    asked = {"version": [one.uid for one in (*versions, other)]}
    client = signed_in(eve)
    page = client.get(reverse("version_compare"), asked).content.decode()
    assert page.count("These are the newest") == 1
    told = client.get(reverse("api_version_compare"), asked).json()["people"]
    assert [one["is_cut"] for one in told] == [True, False]
