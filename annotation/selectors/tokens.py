"""The tokens of a project, and what came by them."""

from django.db.models import Count, QuerySet

from annotation.models import Project, ProjectToken


def tokens_of(*, project: Project) -> QuerySet[ProjectToken]:
    """The newest first, each with `submitted`, how much it has sent. One query."""
    return ProjectToken.objects.filter(project=project).annotate(
        submitted=Count("membership__submissions")
    )
