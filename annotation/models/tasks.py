"""Tasks, how a project asks for them, and to whom they are given."""

import random

from django.db import models
from django.db.models import ExpressionWrapper, F, Q
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Guideline, Membership, Project
from annotation.models.prompts import Candidate, CandidateBatch, Prompt
from modelhub.models import Identified


class TaskForm(models.Model):
    """How a project asks for one kind of task: what is asked beside the judgement itself.

    `settings` are the fields of the kind's dataclass in annotation/task_forms.py.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="task_forms")
    kind = models.CharField(max_length=20)
    settings = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "kind"], name="task_form_unique")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.project}"


def lottery_draw() -> int:
    """A place in the random order of a queue."""
    return random.getrandbits(31)


OPEN = Q(slots_free__gt=0, closed_at__isnull=True, held_at__isnull=True)
# Three queues that share no task: real work, work whose answer is known, and the test before it.
# A mirrored pair is in none: it is made for one person, at the moment it is given to them.
WORK = Q(gold__isnull=True, is_qualification=False, mirror_of__isnull=True)
GOLD = Q(gold__isnull=False, is_qualification=False)
QUALIFICATION = Q(is_qualification=True)
KNOWN = Q(gold__isnull=False) | Q(is_qualification=True)  # a hundred rows, not a million
# Slots of a task that are taken, by live assignments and accepted submissions.
COVERED = ExpressionWrapper(F("overlap") - F("slots_free"), output_field=models.SmallIntegerField())


class Task(Identified):
    """Something to judge. `slots_free` is what its overlap has left; the database keeps it ≥ 0.

    A slot is taken by a conditional update when the task is handed out, stays taken by the
    submission, and comes back when an assignment is skipped or expires.
    """

    class Kind(models.TextChoices):
        DEMONSTRATION = "demonstration", _("demonstration")
        RANKING = "ranking", _("ranking")
        PAIR = "pair", _("pair")
        RATING = "rating", _("rating")
        EDIT = "edit", _("edit")
        DIALOGUE = "dialogue", _("dialogue")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="tasks")
    batch = models.ForeignKey(
        CandidateBatch, on_delete=models.PROTECT, null=True, blank=True, related_name="tasks"
    )
    overlap = models.PositiveSmallIntegerField()
    slots_free = models.SmallIntegerField()
    priority = models.IntegerField(default=0)
    lottery = models.IntegerField(
        default=lottery_draw,
        help_text="a random number: the order of a queue that hands out at random",
    )
    doubt = models.FloatField(
        default=0.0, help_text="how unsure the reward model is of its answers, from 0"
    )
    gold = models.JSONField(
        null=True, blank=True, help_text="the known judgement, in the form that a submission has"
    )
    gold_explanation = models.TextField(blank=True)
    is_qualification = models.BooleanField(default=False)
    mirror_of = models.ForeignKey(
        "Submission",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        db_index=False,
        related_name="mirrors",
        help_text="the judgement of a pair that is asked of the same person again, sides swapped",
    )
    held_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="not handed out until a reviewer has decided what was reported of it",
    )
    closed_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="no longer handed out, for example when its round has frozen",
    )

    class Meta:
        ordering = ["-priority", "id"]
        indexes = [
            # One for each order of a queue (annotation/selectors/queue.py): they hold the open rows
            # alone, in that order, so that the next task is found and never sorted for.
            models.Index(
                fields=["project", "-priority", "id"], name="task_open", condition=OPEN & WORK
            ),
            models.Index(
                fields=["project", "lottery", "id"], name="task_open_random", condition=OPEN & WORK
            ),
            models.Index(
                "project", COVERED, "id", name="task_open_least_covered", condition=OPEN & WORK
            ),
            models.Index(
                fields=["project", "-doubt", "id"], name="task_open_doubt", condition=OPEN & WORK
            ),
            models.Index(fields=["project", "lottery", "id"], name="task_known", condition=KNOWN),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(slots_free__gte=0) & Q(slots_free__lte=F("overlap")),
                name="task_slots_within_overlap",
            ),
            models.UniqueConstraint(fields=["batch", "prompt", "kind"], name="task_unique"),
            models.UniqueConstraint(
                fields=["mirror_of"],
                name="task_mirror_unique",
                condition=Q(mirror_of__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} task {self.uid[:8]}"


class TaskCandidate(models.Model):
    """A candidate of a task, in sampled order (the order annotators never see)."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="task_candidates")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="in_tasks")
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["task", "position"]
        constraints = [
            models.UniqueConstraint(fields=["task", "candidate"], name="task_candidate_unique"),
            models.UniqueConstraint(fields=["task", "position"], name="task_position_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.candidate_id} at {self.position} of {self.task_id}"


class Assignment(Identified):
    """One annotator on one task: lease, draft, seed of the shown order."""

    class State(models.TextChoices):
        LIVE = "live", _("live")
        PAUSED = "paused", _("paused by a question")
        SUBMITTED = "submitted", _("submitted")
        SKIPPED = "skipped", _("skipped")
        EXPIRED = "expired", _("expired")

    HOLDING = (State.LIVE, State.PAUSED)  # a slot of the task

    # The keys here and in Submission that lead an index below need none of their own.
    task = models.ForeignKey(
        Task, on_delete=models.CASCADE, related_name="assignments", db_index=False
    )
    annotator = models.ForeignKey(
        Membership, on_delete=models.PROTECT, related_name="assignments", db_index=False
    )
    state = models.CharField(max_length=20, choices=State.choices, default=State.LIVE)
    lease_until = models.DateTimeField()
    shuffle_seed = models.BigIntegerField(help_text="decides the shown order")
    guideline = models.ForeignKey(
        Guideline, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    draft = models.JSONField(null=True, blank=True)
    draft_sequence = models.PositiveIntegerField(default=0, help_text="the newest draft seen")
    active_s = models.FloatField(default=0, help_text="seconds of attention, as the page counted")
    skip_reason = models.CharField(max_length=300, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["lease_until"], name="assignment_lease", condition=Q(state="live")
            ),
            models.Index(
                fields=["annotator", "-id"],
                name="assignment_resumable",
                condition=Q(state__in=["live", "paused", "expired"]),
            ),
            models.Index(fields=["annotator", "-id"], name="assignment_of_annotator"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["task", "annotator"], name="assignment_unique")
        ]

    def __str__(self) -> str:
        return f"{self.annotator_id} on {self.task_id}"
