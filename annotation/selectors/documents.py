"""Documents of corpora that were sent to annotators."""

from dataclasses import dataclass

from django.db.models import Count, Q

from annotation.models import SampledDocument, Submission
from modelhub.models import Artifact


@dataclass(frozen=True, kw_only=True)
class SentCounts:
    """What a project's people were sent of a corpus, and how often they have answered."""

    uid: str
    name: str
    documents: int
    answers: int


def documents_sent_counts(*, corpus: Artifact) -> list[SentCounts]:
    """The projects that were sent documents of a corpus, the oldest first. One query."""
    accepted = Q(candidate__in_tasks__task__submissions__status=Submission.Status.ACCEPTED)
    project = "candidate__prompt__project"
    rows = (
        SampledDocument.objects.filter(corpus=corpus)
        .values(f"{project}__uid", f"{project}__name", project)
        .annotate(
            documents=Count("pk", distinct=True),
            answers=Count("candidate__in_tasks__task__submissions", filter=accepted, distinct=True),
        )
        .order_by(project)
    )
    return [
        SentCounts(
            uid=row[f"{project}__uid"],
            name=row[f"{project}__name"],
            documents=row["documents"],
            answers=row["answers"],
        )
        for row in rows
    ]
