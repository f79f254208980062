"""Projects, their people and their guidelines."""

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from annotation.models import Guideline, Membership, Project
from annotation.services.projects import (
    guideline_publish,
    membership_add,
    membership_remove,
    membership_role_change,
    person_add,
    person_link_renew,
    project_create,
)
from annotation.services.sign_in import sign_in_link_use
from modelhub.errors import ApplicationError
from tests.builders import make_member, make_project, make_user

pytestmark = pytest.mark.django_db
Role = Membership.Role


def test_whoever_creates_a_project_manages_it() -> None:
    dana = make_user("dana")
    project = project_create(name=" Helpful ", overlap=2, created_by=dana, description="d")
    assert (project.name, project.overlap, project.description) == ("Helpful", 2, "d")
    assert project.memberships.get().user == dana
    assert project.memberships.get().role == Role.MANAGER


@pytest.mark.parametrize(
    ("name", "overlap", "field"),
    [("", 1, "name"), ("  ", 1, "name"), ("x" * 121, 1, "name"), ("x", 0, "overlap")],
)
def test_a_project_that_does_not_fit_is_refused(name: str, overlap: int, field: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        project_create(name=name, overlap=overlap, created_by=None)
    assert refused.value.extra == {"field": field}


def test_adding_a_member_twice_is_adding_once(project: Project) -> None:
    ann = make_user("ann")
    first = membership_add(project=project, user=ann, role=Role.ANNOTATOR)
    assert membership_add(project=project, user=ann, role=Role.ANNOTATOR) == first
    with pytest.raises(ApplicationError, match="already in this project, as annotator"):
        membership_add(project=project, user=ann, role=Role.MANAGER)


def test_somebody_who_left_comes_back_under_the_same_pseudonym(project: Project) -> None:
    ann = make_member(project, "ann")
    membership_remove(membership=ann)
    back = membership_add(project=project, user=ann.user, role=Role.REVIEWER)
    assert (back.uid, back.role, back.removed_at) == (ann.uid, Role.REVIEWER, None)


def test_a_person_does_not_become_a_program_nor_a_program_a_person(project: Project) -> None:
    robot = make_member(project, "robot", simulated=True)
    with pytest.raises(ApplicationError, match="for ever"):
        membership_add(project=project, user=robot.user, role=Role.ANNOTATOR)


def test_an_unknown_role_is_refused(project: Project) -> None:
    with pytest.raises(ApplicationError) as refused:
        membership_add(project=project, user=make_user("ann"), role="owner")
    assert refused.value.extra == {"field": "role"}


def test_the_last_manager_stays(project: Project) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    make_member(project, "ann")
    gone = make_member(project, "gone", Role.MANAGER)
    membership_remove(membership=gone)
    for change in (
        lambda: membership_remove(membership=dana),
        lambda: membership_role_change(membership=dana, role=Role.REVIEWER),
    ):
        with pytest.raises(ApplicationError, match="last manager"):
            change()
    dana.refresh_from_db()
    assert (dana.role, dana.removed_at) == (Role.MANAGER, None)
    second = make_member(project, "second", Role.MANAGER)
    assert membership_role_change(membership=dana, role=Role.ANNOTATOR).role == Role.ANNOTATOR
    with pytest.raises(ApplicationError, match="last manager"):
        membership_remove(membership=second)


def test_a_new_person_is_added_with_a_link_and_no_password(project: Project) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    user, token = person_add(project=project, username="new", role=Role.ANNOTATOR, actor=dana.user)
    assert not user.has_usable_password()
    assert project.memberships.get(user=user).role == Role.ANNOTATOR
    assert sign_in_link_use(token=token) == user


def test_nobody_gets_a_link_for_an_account_that_is_another_persons(project: Project) -> None:
    """A manager of any project could otherwise sign in as anyone, the administrator first."""
    admin = make_user("root", is_superuser=True)
    dana = make_member(project, "dana", Role.MANAGER)
    user, token = person_add(project=project, username="root", role=Role.ANNOTATOR, actor=dana.user)
    assert (user, token) == (admin, "")
    held = project.memberships.get(user=admin)
    with pytest.raises(ApplicationError, match="more rights"):
        person_link_renew(membership=held, actor=dana.user)
    for rights in ({"is_superuser": True, "is_staff": False}, {"is_staff": True}):
        engineer = User.objects.create_user(f"engineer-{len(rights)}", **rights)  # no password
        with pytest.raises(ApplicationError, match="more rights"):
            person_link_renew(
                membership=membership_add(project=project, user=engineer, role=Role.ANNOTATOR),
                actor=dana.user,
            )


def test_a_lost_link_is_made_again_until_there_is_a_password(project: Project) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    user, first = person_add(project=project, username="new", role=Role.ANNOTATOR, actor=dana.user)
    membership = project.memberships.get(user=user)
    second = person_link_renew(membership=membership, actor=dana.user)
    assert sign_in_link_use(token=first) is None
    assert sign_in_link_use(token=second) == user
    user.last_login = timezone.now()
    user.save()
    third = person_link_renew(membership=membership, actor=dana.user)
    assert sign_in_link_use(token=third) == user
    membership_remove(membership=membership)
    membership_add(project=project, user=user, role=Role.ANNOTATOR)
    person_link_renew(membership=membership, actor=dana.user)
    user.set_password("quite another phrase")
    user.save()
    with pytest.raises(ApplicationError, match="has a password"):
        person_link_renew(membership=membership, actor=dana.user)


def test_who_adds_somebody_elses_person_cannot_sign_in_as_them(project: Project) -> None:
    """Anybody can be added by name: whoever has a project could enter every other by it."""
    dana = make_member(project, "dana", Role.MANAGER)
    user, _ = person_add(project=project, username="new", role=Role.ANNOTATOR, actor=dana.user)
    theirs = make_project("Other")
    mallory = make_member(theirs, "mallory", Role.MANAGER)
    caught = membership_add(project=theirs, user=user, role=Role.ANNOTATOR)
    for _ in range(2):  # after they have left the first project too
        with pytest.raises(ApplicationError, match="added them first"):
            person_link_renew(membership=caught, actor=mallory.user)
        ours = project.memberships.get(user=user)
        token = person_link_renew(membership=ours, actor=dana.user)
        assert sign_in_link_use(token=token) == user
        membership_remove(membership=ours)
    root = make_user("root", is_superuser=True)
    assert sign_in_link_use(token=person_link_renew(membership=caught, actor=root)) == user
    make_member(project, "mallory", Role.MANAGER)
    person_link_renew(membership=caught, actor=mallory.user)


def test_who_manages_another_project_gets_no_link_from_a_manager_of_this_one(
    project: Project,
) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    user, _ = person_add(project=project, username="new", role=Role.MANAGER, actor=dana.user)
    ours, other = project.memberships.get(user=user), make_project("Other")
    make_member(other, "charlie", Role.MANAGER)
    theirs = membership_add(project=other, user=user, role=Role.MANAGER)
    with pytest.raises(ApplicationError, match="each that they manage"):
        person_link_renew(membership=ours, actor=dana.user)
    membership_role_change(membership=theirs, role=Role.ANNOTATOR)
    person_link_renew(membership=ours, actor=dana.user)


@pytest.mark.parametrize("username", ["", "  ", "a b", "<script>", "x" * 151, "a\x00b"])
def test_a_name_that_is_none_is_refused_and_nobody_is_made(project: Project, username: str) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    with pytest.raises(ApplicationError) as refused:
        person_add(project=project, username=username, role=Role.ANNOTATOR, actor=dana.user)
    assert refused.value.extra == {"field": "username"}
    assert User.objects.count() == 1


def test_a_refused_role_makes_nobody(project: Project) -> None:
    dana = make_member(project, "dana", Role.MANAGER)
    with pytest.raises(ApplicationError):
        person_add(project=project, username="new", role="owner", actor=dana.user)
    assert not User.objects.filter(username="new").exists()


def test_guidelines_are_numbered_and_unchanged_text_makes_none(project: Project) -> None:
    first = guideline_publish(project=project, text="Be fair.", author=None)
    assert guideline_publish(project=project, text="Be fair.", author=None) == first
    second = guideline_publish(project=project, text="Be quick.", author=None)
    assert [first.number, second.number] == [1, 2]
    assert Guideline.objects.filter(project=project).count() == 2
    for text in ("", " \n", "x" * 100_001):
        with pytest.raises(ApplicationError):
            guideline_publish(project=project, text=text, author=None)
