"""What every page of a project shows around its own part."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation import policy
from annotation.models import Membership, Project
from annotation.selectors.questions import questions_waiting
from annotation.selectors.reports import reports_waiting


def project_frame(request: HttpRequest, project: Project, tab: str) -> dict[str, Any]:
    """The context that templates/annotation/_project_head.html wants. Two queries at most."""
    role = policy.role_of(request.user, project)
    return {
        "project": project,
        "tab": tab,
        "role": role,
        "is_manager": policy.role_reaches(role, Membership.Role.MANAGER),
        "is_reviewer": policy.role_reaches(role, Membership.Role.REVIEWER),
        "membership": policy.membership_of(request.user, project),
    }


def quality_frame(request: HttpRequest, project: Project, part: str) -> dict[str, Any]:
    """The frame of a page of quality, with what _quality_parts.html wants. Four queries at most."""
    return project_frame(request, project, "quality") | {
        "part": part,
        "reports_waiting": reports_waiting(project=project),
        "questions_waiting": questions_waiting(project=project),
    }


def membership_wanted(request: HttpRequest, project_uid: str) -> HttpResponse:
    """What a superuser sees where members work: they manage the project and are not one of them.

    Raises Http404 for everybody else, to whom the project does not exist.
    """
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    context = project_frame(request, project, "")
    context["annotator"] = Membership.Role.ANNOTATOR
    return render(request, "annotation/membership_wanted.html", context, status=403)
