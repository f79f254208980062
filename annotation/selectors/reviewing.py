"""What waits for a reviewer."""

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext_lazy as _

from annotation.models import Project, Review, Submission

STATUSES = {
    "unreviewed": _("not reviewed yet"),
    "accepted": _("counts"),
    "rejected": _("rejected"),
    "withdrawn": _("sent back"),
    "all": _("all"),
}


def submissions_for_review(
    *, project: Project, status: str = "unreviewed", kind: str = "", annotator: str = ""
) -> QuerySet[Submission]:
    """A project's submissions, the newest first, each with `is_reviewed` as it is now.

    status: one of STATUSES; what was sent again after a review is unreviewed.
    annotator: the uid of a member. To be cut into pages; one query.
    """
    current = Review.objects.filter(
        submission=OuterRef("pk"), created_at__gte=OuterRef("created_at")
    )
    submissions = (
        Submission.objects.filter(task__project=project)
        .select_related("task__prompt", "annotator__user", "annotator__project")
        .annotate(is_reviewed=Exists(current))
        .order_by("-pk")
    )
    if status == "unreviewed":
        submissions = submissions.filter(
            is_reviewed=False, status__in=[Submission.Status.ACCEPTED, Submission.Status.SURPLUS]
        )
    elif status in Submission.Status.values:
        submissions = submissions.filter(status=status)
    if kind:
        submissions = submissions.filter(task__kind=kind)
    if annotator:
        submissions = submissions.filter(annotator__uid=annotator)
    return submissions


def next_unreviewed(*, project: Project, after: Submission, reviewer_pk: int) -> Submission | None:
    """The next older submission that nobody reviewed, not the reviewer's own. One query."""
    return (
        submissions_for_review(project=project)
        .filter(pk__lt=after.pk)
        .exclude(annotator=reviewer_pk)
        .first()
    )
