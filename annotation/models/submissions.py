"""What was said of a task, by kind."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Membership
from annotation.models.prompts import Candidate, Prompt
from annotation.models.tasks import Assignment, Task
from modelhub.models import Identified


class Submission(Identified):
    """A judgement. `accepted` counts; `surplus` came after the overlap was filled."""

    class Status(models.TextChoices):
        ACCEPTED = "accepted", _("counts")
        SURPLUS = "surplus", _("surplus")
        REJECTED = "rejected", _("rejected")
        WITHDRAWN = "withdrawn", _("withdrawn")

    assignment = models.OneToOneField(
        Assignment, on_delete=models.PROTECT, related_name="submission"
    )
    task = models.ForeignKey(
        Task, on_delete=models.PROTECT, related_name="submissions", db_index=False
    )
    annotator = models.ForeignKey(
        Membership, on_delete=models.PROTECT, related_name="submissions", db_index=False
    )
    status = models.CharField(max_length=20, choices=Status.choices)
    source = models.CharField(
        max_length=20,
        choices=Membership.Source,
        default=Membership.Source.PERSON,
        help_text="whose judgement it is: the annotator's source when it was made",
    )
    shown_order = models.JSONField(help_text="candidate uids, as the annotator saw them")
    active_s = models.FloatField(default=0)
    first_move_s = models.FloatField(
        null=True, blank=True, help_text="seconds of attention before the first move"
    )
    rationale = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["annotator", "created_at"], name="submission_of_annotator")]
        constraints = [
            models.UniqueConstraint(fields=["task", "annotator"], name="submission_unique")
        ]

    def __str__(self) -> str:
        return f"submission {self.uid[:8]}"

    @property
    def is_simulated(self) -> bool:
        """Whether a program judged and not a person."""
        return self.source in Membership.PROGRAMS


class Demonstration(models.Model):
    """The judgement of a demonstration task: an answer that a person wrote, a candidate now."""

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="demonstration"
    )
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    started_from = models.ForeignKey(
        Candidate,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="the model's draft that was written on from",
    )
    turns = models.JSONField(
        default=list, help_text='what follows the answer: [{"user": "…", "text": "…"}, …]'
    )

    def __str__(self) -> str:
        return str(self.candidate)


class Degree(models.IntegerChoices):
    """How much better one answer is than another: Llama 2's four steps, and a tie."""

    TIE = 0, _("a tie")
    NEGLIGIBLY = 1, _("negligibly better or unsure")
    SLIGHTLY = 2, _("slightly better")
    BETTER = 3, _("better")
    SIGNIFICANTLY = 4, _("significantly better")


class Comparison(models.Model):
    """The judgement of a pair, or that an edit makes: `better` over `worse` by a degree."""

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="comparison"
    )
    better = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    worse = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    degree = models.PositiveSmallIntegerField(
        choices=Degree.choices, help_text="0 is a tie: better and worse mean nothing then"
    )
    unsafe = models.JSONField(
        default=list, help_text="uids of those that are not safe; may be both"
    )

    def __str__(self) -> str:
        return f"{self.better_id} over {self.worse_id}: {self.get_degree_display()}"


class Rating(models.Model):
    """The judgement of a rating task: each candidate by itself."""

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="rating"
    )
    ratings = models.JSONField(
        help_text='{"<candidate uid>": {"overall": 1 to 7, "flags": ["harmful", …]}, …}'
    )

    def __str__(self) -> str:
        return f"rating of {len(self.ratings)}"


class Edit(models.Model):
    """The judgement of an edit task: one of its candidates made better.

    Beside it lies a Comparison of the edited candidate over the original.
    """

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="edit"
    )
    original = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    diff = models.JSONField(
        help_text='[["=", "kept"], ["-", "taken out"], ["+", "put in"], …], words'
    )
    changed_share = models.FloatField(help_text="words taken out and put in, of all words; 0 to 1")

    def __str__(self) -> str:
        return f"edit of {self.original_id}"


class DialogueTurn(models.Model):
    """Two live answers to a talk that an annotator is having; chosen or not.

    The prompt is the whole talk up to them, so that it has a split of its own.
    """

    assignment = models.ForeignKey(
        Assignment, on_delete=models.PROTECT, related_name="dialogue_turns"
    )
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="+")
    first = models.ForeignKey(
        Candidate, on_delete=models.PROTECT, related_name="+", help_text="the one shown first"
    )
    second = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["assignment", "prompt"], name="dialogue_turn_answered_once"
            )
        ]

    def __str__(self) -> str:
        return f"answers to {self.prompt_id} in {self.assignment_id}"


class Dialogue(models.Model):
    """The judgement of a dialogue task: turns in which one of two live answers was chosen."""

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="dialogue"
    )
    turns = models.JSONField(
        help_text='[{"user": "…", "candidates": [uid, uid], "chosen": uid, "degree": 1 to 4}, …]'
    )

    def __str__(self) -> str:
        return f"dialogue of {len(self.turns)} turns"


class Ranking(models.Model):
    """The judgement of a ranking task: tiers of candidate uids, best first; ties share a tier."""

    submission = models.OneToOneField(
        Submission, on_delete=models.CASCADE, primary_key=True, related_name="ranking"
    )
    tiers = models.JSONField(help_text='[["uid of the best"], ["tied", "tied"], …]')
    unacceptable = models.JSONField(
        default=list, help_text="candidate uids, also in the tiers, that nobody should be given"
    )

    def __str__(self) -> str:
        return " > ".join(" = ".join(uid[:4] for uid in tier) for tier in self.tiers)


class SubmissionRevision(models.Model):
    """A later, different judgement of the same task by the same person: kept, never lost."""

    submission = models.ForeignKey(Submission, on_delete=models.CASCADE, related_name="revisions")
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"revision of {self.submission}"
