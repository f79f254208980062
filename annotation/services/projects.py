"""Projects, their people and their guidelines."""

from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import Assignment, Guideline, Membership, Project
from annotation.policy import links_may_give
from annotation.services.assignments import assignment_release
from annotation.services.sign_in import sign_in_link_create
from modelhub.errors import ApplicationError

MAX_GUIDELINE_CHARS = 100_000
MAX_NAME_CHARS = 120
MAX_DESCRIPTION_CHARS = 5_000


@transaction.atomic
def project_create(
    *, name: str, overlap: int = 1, created_by: User | None, description: str = ""
) -> Project:
    """Create a project; whoever creates it manages it."""
    name, description = _described(name, description)
    if not 1 <= overlap <= 50:
        raise ApplicationError(
            gettext("overlap is the people for each task, 1 to 50; got %(overlap)s.")
            % {"overlap": overlap},
            {"field": "overlap"},
        )
    project = Project.objects.create(
        name=name, overlap=overlap, description=description, created_by=created_by
    )
    if created_by is not None:
        membership_add(project=project, user=created_by, role=Membership.Role.MANAGER)
    return project


def project_describe(*, project: Project, name: str, description: str) -> Project:
    """Give a project another name and description. Raises ApplicationError naming the field."""
    project.name, project.description = _described(name, description)
    project.save(update_fields=["name", "description"])
    return project


def _described(name: str, description: str) -> tuple[str, str]:
    """The two as they are kept. Raises ApplicationError naming the field that does not do."""
    name, description = name.strip(), description.strip()
    if not name or len(name) > MAX_NAME_CHARS:
        raise ApplicationError(
            gettext("A project needs a name of at most 120 characters."), {"field": "name"}
        )
    if len(description) > MAX_DESCRIPTION_CHARS:
        raise ApplicationError(
            gettext("A description is at most %(most)s characters.")
            % {"most": MAX_DESCRIPTION_CHARS},
            {"field": "description"},
        )
    return name, description


@transaction.atomic
def membership_add(
    *, project: Project, user: User, role: str, source: str = Membership.Source.PERSON
) -> Membership:
    """Make the person a member, or bring back one who had left. Asked twice, it changes nothing.

    Raises ApplicationError if the person is a member in another role, or for another source.
    """
    _role_check(role)
    membership, _ = Membership.objects.get_or_create(
        project=project, user=user, defaults={"role": role, "source": source}
    )
    if membership.source != source:
        raise ApplicationError(
            gettext("%(user)s already labels here, and marks labels for ever.") % {"user": user},
            {"field": "user"},
        )
    if membership.removed_at is not None:
        membership.role, membership.removed_at = role, None
        membership.save(update_fields=["role", "removed_at"])
    if membership.role != role:
        raise ApplicationError(
            gettext("%(user)s is already in this project, as %(role)s.")
            % {"user": user, "role": membership.role},
            {"field": "user"},
        )
    return membership


@transaction.atomic
def membership_role_change(*, membership: Membership, role: str) -> Membership:
    """Give a member another role. The last manager stays one."""
    _role_check(role)
    _project_lock(membership.project_id)
    membership.refresh_from_db()
    if role != Membership.Role.MANAGER:
        _manager_remains_check(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def membership_remove(*, membership: Membership) -> None:
    """End a membership: the access is gone, what was held is free again, the work stays."""
    _project_lock(membership.project_id)
    held = Membership.objects.select_for_update(no_key=True).get(pk=membership.pk)
    if held.removed_at is not None:
        return
    _manager_remains_check(held)
    held.removed_at = timezone.now()
    held.save(update_fields=["removed_at"])
    for assignment in held.assignments.filter(state__in=Assignment.HOLDING).order_by("task_id"):
        assignment_release(assignment=assignment)
    membership.removed_at = held.removed_at


@transaction.atomic
def guideline_publish(*, project: Project, text: str, author: User | None) -> Guideline:
    """Publish the next version of the instructions. Text that did not change makes none."""
    if not text.strip() or len(text) > MAX_GUIDELINE_CHARS:
        raise ApplicationError(
            gettext("Guidelines need 1 to %(max_guideline_chars)s characters.")
            % {"max_guideline_chars": MAX_GUIDELINE_CHARS},
            {"field": "text"},
        )
    _project_lock(project.pk)
    newest = project.guidelines.first()
    if newest is not None and newest.text == text:
        return newest
    number = (project.guidelines.aggregate(top=Max("number"))["top"] or 0) + 1
    return Guideline.objects.create(project=project, number=number, text=text, author=author)


@transaction.atomic
def person_add(*, project: Project, username: str, role: str, actor: User) -> tuple[User, str]:
    """Add a person by name and return them with a one-time sign-in token.

    Somebody new is created without a password. For somebody who already has an account the token is
    "": a manager who could make links for any account could sign in as anyone.
    """
    username = username.strip()
    user = User.objects.filter(username=username).first()
    if user is not None:
        membership_add(project=project, user=user, role=role)
        return user, ""
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        raise ApplicationError(
            gettext("A user name has letters, digits and @ . + - _ only."), {"field": "username"}
        ) from error
    if not 1 <= len(username) <= 150:
        raise ApplicationError(
            gettext("A user name has 1 to 150 characters."), {"field": "username"}
        )
    user = User.objects.create_user(username=username)
    membership_add(project=project, user=user, role=role)
    return user, sign_in_link_create(user=user)


@transaction.atomic
def person_link_renew(*, membership: Membership, actor: User) -> str:
    """Another one-time token, for a member who has nothing else to sign in with.

    Whose links a manager may make, policy.links_may_give says. Raises ApplicationError.
    """
    # Locked: a password that is being chosen is seen, and ends the link.
    user = User.objects.select_for_update(no_key=True).get(pk=membership.user_id)
    membership.user = user
    if links_may_give(actor, [membership]):
        return sign_in_link_create(user=user)
    named = {"user": user}
    if membership.source != Membership.Source.PERSON or not user.is_active:
        raise ApplicationError(gettext("Nobody can sign in as %(user)s.") % named)
    if user.is_staff or user.is_superuser:
        raise ApplicationError(
            gettext("%(user)s has more rights than a project gives: an administrator lets them in.")
            % named
        )
    if user.has_usable_password():
        raise ApplicationError(
            gettext("%(user)s has a password; an administrator can set another.") % named
        )
    raise ApplicationError(
        gettext(
            "%(user)s is in other projects too: a new link comes from a manager of the project "
            "that added them first, and of each that they manage, or from an administrator."
        )
        % named
    )


def _project_lock(project_id: int) -> None:
    """Order the changes of one project's members and guidelines."""
    Project.objects.select_for_update(no_key=True).get(pk=project_id)


def _manager_remains_check(membership: Membership) -> None:
    others = Membership.objects.filter(
        project=membership.project_id, role=Membership.Role.MANAGER, removed_at=None
    ).exclude(pk=membership.pk)
    if membership.role == Membership.Role.MANAGER and not others.exists():
        raise ApplicationError(
            gettext("The last manager of a project cannot leave or change role.")
        )


def _role_check(role: str) -> None:
    if role not in Membership.Role.values:
        raise ApplicationError(
            gettext("No such role: %(role)s. Roles: %(names)s.")
            % {"role": f"{role!r}", "names": ", ".join(Membership.Role.values)},
            {"field": "role"},
        )


def guideline_read(*, membership: Membership, number: int) -> int:
    """Keep that a member has opened a version of the guidelines; returns the newest they opened.

    A version that there is not yet counts as the newest there is.
    """
    newest = Guideline.objects.filter(project=membership.project_id).aggregate(Max("number"))
    number = min(number, newest["number__max"] or 0)
    Membership.objects.filter(pk=membership.pk, guideline_read__lt=number).update(
        guideline_read=number
    )
    membership.refresh_from_db(fields=["guideline_read"])
    return membership.guideline_read
