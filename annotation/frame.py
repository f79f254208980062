"""What every page of a project shows around its own part."""

from typing import Any

from django.http import HttpRequest

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
