"""Who may do what: the one file to read before trusting Rondo with a project.

Access is by membership of a project; a superuser manages every project. Whoever may not see a
thing is told that it does not exist (404), in the same words as for a thing that does not.

| role      | judges, sees own | reviews others, sees quality | prompts, members, data, rounds |
| --------- | ---------------- | ---------------------------- | ------------------------------ |
| annotator | yes              |                              |                                |
| reviewer  | yes              | yes                          |                                |
| manager   | yes              | yes                          | yes                            |

Nobody reviews their own work, nor decides a task on which they have a judgement of their own.
"""

from collections.abc import Iterable

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet
from django.http import Http404

from annotation.models import (
    Assignment,
    Membership,
    PreferenceDataset,
    Project,
    Question,
    Report,
    Submission,
    Task,
    TaskForm,
)
from modelhub.prepared import PreparedObjects

Role = Membership.Role
Person = User | AnonymousUser
_RANK = {Role.ANNOTATOR.value: 1, Role.REVIEWER.value: 2, Role.MANAGER.value: 3}


def membership_of(user: Person, project: Project) -> Membership | None:
    """The person's standing membership of the project, or None. One query."""
    if not isinstance(user, User):
        return None
    return Membership.objects.filter(project=project, user=user, removed_at=None).first()


def role_of(user: Person, project: Project) -> str | None:
    """The role the person acts in: "manager" for a superuser, None for an outsider."""
    if user.is_superuser:
        return Role.MANAGER.value
    membership = membership_of(user, project)
    return membership.role if membership else None


def role_reaches(role: str | None, at_least: str) -> bool:
    """Whether a role may do what `at_least` may."""
    return role is not None and _RANK[role] >= _RANK[at_least]


def projects_may_create(user: Person) -> bool:
    """Staff, and whoever manages a project already. One query at most."""
    return bool(getattr(user, "is_staff", False)) or manages_any(user)


def manages_any(user: Person) -> bool:
    """Whether the person manages some project, as a superuser does. One query at most."""
    if not user.is_authenticated:
        return False
    if getattr(user, "is_superuser", False):
        return True
    return Membership.objects.filter(user=user, role=Role.MANAGER, removed_at=None).exists()


def projects_where(user: Person, at_least: str) -> QuerySet[Project]:
    """The projects in which the person's role is at least this: all of them for a superuser.

    What is read through it takes as long to be missing as to be somebody else's: the time of a 404
    does not tell whether there is such a row.
    """
    if not isinstance(user, User):
        return Project.objects.none()
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(
        memberships__user=user,
        memberships__role__in=[role for role in _RANK if role_reaches(role, at_least)],
        memberships__removed_at=None,
    )


def projects_managed(user: Person) -> QuerySet[Project]:
    """The projects whose managers' rights the person has: all of them for a superuser."""
    return projects_where(user, Role.MANAGER)


def links_may_give(user: Person, memberships: Iterable[Membership]) -> set[int]:
    """Of these members of projects the user manages, who may get a one-time link from them (pks).

    A link signs its bearer in as that person, in every project of theirs, and whoever manages one
    project can add anybody to it by name. So a link is only for people who have nothing else to
    sign in with and no rights of staff; only from managers of the project that added them first;
    and for somebody who manages another project, only from its managers. Two queries.
    """
    open_to = {
        one.pk: one.user_id
        for one in memberships
        if one.source == Membership.Source.PERSON
        and one.user.is_active
        and not (one.user.has_usable_password() or one.user.is_staff or one.user.is_superuser)
    }
    managed = set(projects_managed(user).values_list("pk", flat=True))
    first: dict[int, int] = {}
    manages_elsewhere: set[int] = set()
    held = Membership.objects.filter(user__in=open_to.values()).order_by("pk")
    for person, project, role, removed_at in held.values_list(
        "user", "project", "role", "removed_at"
    ):
        first.setdefault(person, project)
        if role == Role.MANAGER and removed_at is None and project not in managed:
            manages_elsewhere.add(person)
    return {
        pk
        for pk, person in open_to.items()
        if first.get(person) in managed and person not in manages_elsewhere
    }


def project_for(user: Person, uid: str, at_least: str = Role.ANNOTATOR) -> Project:
    """The project, for someone whose role in it is at least this. Raises Http404 otherwise."""
    project = projects_where(user, at_least).filter(uid=uid).first()
    if project is None:
        raise Http404("Not found.")
    return project


def membership_for(user: Person, uid: str) -> Membership:
    """The person's membership of a project, which all annotating needs. Raises Http404 without.

    A superuser who is no member has none: what is annotated, somebody of the project annotated.
    """
    membership = _MEMBERSHIP.first(uid=uid, user=user.pk) if isinstance(user, User) else None
    if membership is None:
        raise Http404("Not found.")
    _forms_bring(membership.project)
    return membership


_MEMBERSHIP = PreparedObjects(
    lambda uid, user: (
        Membership.objects.filter(project__uid=uid, user=user, removed_at=None)
        .order_by()
        .select_related("project")
    ),
    texts=("uid",),
    numbers=("user",),
)


def assignment_for(user: Person, uid: str) -> Assignment:
    """An assignment, for the annotator whose it is alone. Raises Http404 otherwise."""
    if not isinstance(user, User):
        raise Http404("Not found.")
    assignment = _ASSIGNMENT.first(uid=uid, user=user.pk)
    if assignment is None:
        raise Http404("Not found.")
    # Of one project, and one user: nothing is read twice.
    project = assignment.task.project = assignment.annotator.project
    assignment.annotator.user = user
    _forms_bring(project)
    return assignment


_ASSIGNMENT = PreparedObjects(
    lambda uid, user: (
        Assignment.objects.filter(uid=uid, annotator__user=user, annotator__removed_at=None)
        .order_by()
        .select_related("task", "annotator__project")
    ),
    texts=("uid",),
    numbers=("user",),
)


def _forms_bring(project: Project) -> None:
    """Read how the project asks for each kind, as prefetch_related would leave it for form_of."""
    vars(project)["_prefetched_objects_cache"] = {"task_forms": _FORMS.objects(project=project.pk)}


_FORMS = PreparedObjects(
    lambda project: TaskForm.objects.filter(project=project).order_by(), numbers=("project",)
)


def question_for(user: Person, uid: str) -> tuple[Question, Membership]:
    """A question, and the person's membership, for reviewers of its project. Raises Http404."""
    reviewed = projects_where(user, Role.REVIEWER)
    question = (
        Question.objects.filter(uid=uid, assignment__annotator__project__in=reviewed)
        .select_related("assignment__annotator__project", "assignment__annotator__user")
        .first()
    )
    if question is None:
        raise Http404("Not found.")
    membership = membership_of(user, question.assignment.annotator.project)
    if membership is None:  # a superuser who is no member
        raise Http404("Not found.")
    return question, membership


def member_for(user: Person, project_uid: str, membership_uid: str) -> Membership:
    """A member of a project that the person manages. Raises Http404."""
    project = project_for(user, project_uid, Role.MANAGER)
    membership = (
        project.memberships.filter(uid=membership_uid, removed_at=None)
        .select_related("user")
        .first()
    )
    if membership is None:
        raise Http404("Not found.")
    return membership


def reviewer_for(user: Person, project_uid: str) -> Membership:
    """The person's membership of a project they review. Raises Http404.

    A superuser who is no member has none: what is reviewed, somebody of the project reviewed.
    """
    membership = membership_for(user, project_uid)
    if not role_reaches(membership.role, Role.REVIEWER):
        raise Http404("Not found.")
    return membership


def submission_for(user: Person, project_uid: str, submission_uid: str) -> Submission:
    """A submission of a project that the person reviews. Raises Http404."""
    project = project_for(user, project_uid, Role.REVIEWER)
    submission = (
        Submission.objects.filter(task__project=project, uid=submission_uid)
        .select_related("task__prompt", "task__project", "annotator__user", "assignment__guideline")
        .first()
    )
    if submission is None:
        raise Http404("Not found.")
    submission.task.project = project
    return submission


def report_for(user: Person, project_uid: str, report_uid: str) -> tuple[Report, Membership]:
    """A report of a project's task, and the reviewer's membership. Raises Http404."""
    membership = reviewer_for(user, project_uid)
    report = Report.objects.filter(task__project=membership.project_id, uid=report_uid).first()
    if report is None:
        raise Http404("Not found.")
    return report, membership


def task_for(user: Person, project_uid: str, task_uid: str) -> Task:
    """A task of a project that the person reviews. Raises Http404."""
    project = project_for(user, project_uid, Role.REVIEWER)
    task = project.tasks.filter(uid=task_uid).select_related("prompt", "project").first()
    if task is None:
        raise Http404("Not found.")
    return task


def dataset_for(
    user: Person, uid: str, at_least: str = Role.MANAGER, *, project_uid: str | None = None
) -> PreferenceDataset:
    """A dataset of a project in which the person's role is at least this. Raises Http404.

    With `project_uid`, as in a nested URL, the dataset of another project is not found either.
    """
    projects = projects_where(user, at_least)
    if project_uid is not None:
        projects = projects.filter(uid=project_uid)
    dataset = (
        PreferenceDataset.objects.filter(uid=uid, project__in=projects)
        .select_related("project", "artifact")
        .first()
    )
    if dataset is None:
        raise Http404("Not found.")
    return dataset
