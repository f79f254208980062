"""What annotators ask and report, and what reviewers say and decide."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Membership
from annotation.models.submissions import Submission
from annotation.models.tasks import Assignment, Task
from modelhub.models import Identified


class Question(Identified):
    """A doubt an annotator put to the reviewers; the assignment waits, with its slot, for them."""

    assignment = models.ForeignKey(Assignment, on_delete=models.CASCADE, related_name="questions")
    text = models.TextField()
    answer = models.TextField(blank=True)
    answered_by = models.ForeignKey(
        Membership, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.text[:80]


class Report(Identified):
    """Something is wrong with a task: an annotator said so, or too many of them skipped it."""

    class Decision(models.TextChoices):
        KEEP = "keep", _("kept")
        RETIRE = "retire", _("retired")

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="reports")
    reporter = models.ForeignKey(
        Membership,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="nobody where the task was skipped too often",
    )
    text = models.TextField()
    decision = models.CharField(max_length=20, choices=Decision.choices, blank=True)
    decided_by = models.ForeignKey(
        Membership, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.text[:80]


class Review(Identified):
    """What a reviewer said of somebody else's submission. The newest decides."""

    class Verdict(models.TextChoices):
        ACCEPT = "accept", _("accepted")
        REJECT = "reject", _("rejected")
        SEND_BACK = "send_back", _("sent back")

    submission = models.ForeignKey(Submission, on_delete=models.CASCADE, related_name="reviews")
    reviewer = models.ForeignKey(Membership, on_delete=models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=20, choices=Verdict.choices)
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_verdict_display()} by {self.reviewer_id}"


class Adjudication(Identified):
    """A reviewer's decision of a task on which people disagreed: which submission stands."""

    task = models.OneToOneField(Task, on_delete=models.CASCADE, related_name="adjudication")
    reviewer = models.ForeignKey(Membership, on_delete=models.PROTECT, related_name="+")
    submission = models.ForeignKey(
        Submission, on_delete=models.PROTECT, related_name="+", help_text="the one that stands"
    )
    reason = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"adjudication of {self.task_id}"
