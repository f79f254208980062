"""What every page of a project shows around its own part."""

from typing import Any

from django.http import HttpRequest

from annotation import policy
from annotation.models import Membership, Project


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
