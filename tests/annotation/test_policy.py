"""Who may what: every role against every bar, and the outsider against all."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import Http404

from annotation import policy
from annotation.models import Membership, Project
from annotation.services.assignments import assignment_next
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.projects import membership_remove
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_project, make_ranking_task, make_user

pytestmark = pytest.mark.django_db
Role = Membership.Role
ORDER = [Role.ANNOTATOR, Role.REVIEWER, Role.MANAGER]


@pytest.mark.parametrize("role", ORDER)
@pytest.mark.parametrize("bar", ORDER)
def test_a_role_reaches_its_own_bar_and_those_below(
    project: Project, role: Role, bar: Role
) -> None:
    user = make_member(project, "ann", role).user
    if ORDER.index(role) >= ORDER.index(bar):
        assert policy.project_for(user, project.uid, at_least=bar) == project
    else:
        with pytest.raises(Http404):
            policy.project_for(user, project.uid, at_least=bar)


@pytest.mark.parametrize("who", ["anonymous", "outsider", "staff", "gone"])
def test_whoever_is_outside_is_told_that_there_is_nothing(project: Project, who: str) -> None:
    if who == "anonymous":
        user = AnonymousUser()
    elif who == "outsider":
        user = make_member(make_project("Other"), "out", Role.MANAGER).user
    elif who == "staff":
        user = make_user("staff", is_staff=True)
    else:
        make_member(project, "dana", Role.MANAGER)
        membership = make_member(project, "gone", Role.MANAGER)
        membership_remove(membership=membership)
        user = membership.user
    assert policy.membership_of(user, project) is None
    messages = set()
    for uid in (project.uid, "0" * 32, "", "'"):
        with pytest.raises(Http404) as refused:
            policy.project_for(user, uid)
        messages.add(str(refused.value))
        with pytest.raises(Http404):
            policy.membership_for(user, uid)
    assert messages == {"Not found."}


def test_a_superuser_manages_every_project_and_annotates_none(project: Project) -> None:
    root = make_user("root", is_superuser=True)
    assert policy.project_for(root, project.uid, at_least=Role.MANAGER) == project
    with pytest.raises(Http404):
        policy.membership_for(root, project.uid)


def test_an_assignment_is_its_annotators_alone(project: Project) -> None:
    make_ranking_task(project)
    ann = make_member(project, "ann")
    assignment = assignment_next(membership=ann)
    assert policy.assignment_for(ann.user, assignment.uid) == assignment
    others = [
        make_member(project, "dana", Role.MANAGER).user,
        make_user("root", is_superuser=True),
        AnonymousUser(),
    ]
    for other in others:
        with pytest.raises(Http404):
            policy.assignment_for(other, assignment.uid)
    membership_remove(membership=ann)
    with pytest.raises(Http404):
        policy.assignment_for(ann.user, assignment.uid)


def test_a_dataset_is_for_the_managers_of_its_project(project: Project) -> None:
    make_answered_batch(project)
    ann = make_member(project, "ann")
    rank_all(ann)
    dataset = preference_dataset_freeze(project=project)
    dana = make_member(project, "dana", Role.MANAGER)
    assert policy.dataset_for(dana.user, dataset.uid) == dataset
    outsider = make_member(make_project("Other"), "out", Role.MANAGER)
    for user in (ann.user, outsider.user, AnonymousUser()):
        with pytest.raises(Http404):
            policy.dataset_for(user, dataset.uid)
