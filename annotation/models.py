"""Prompts, the candidates written for them, and what people said of those.

Knows model versions (who wrote a candidate), and no reward model or round.
"""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from modelhub.models import Artifact, Identified, ModelVersion, Run


class Project(Identified):
    """A body of prompts and the people who judge the answers to them."""

    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    overlap = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(50)],
        help_text="how many people judge each task",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(Identified):
    """A person's role in a project. Its `uid` is the pseudonym that exports carry."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", "annotator"
        REVIEWER = "reviewer", "reviewer"
        MANAGER = "manager", "manager"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=20, choices=Role.choices, default=Role.ANNOTATOR)
    is_simulated = models.BooleanField(
        default=False, help_text="a program that labels; its labels are marked for ever"
    )
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="left the project; the work stays, the access is gone"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}) in {self.project}"


class SignInLink(models.Model):
    """A link that signs one person in, once. Only its digest is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    token_sha256 = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"sign-in link for {self.user}"


class Guideline(Identified):
    """One version of a project's instructions to annotators."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    number = models.PositiveIntegerField()
    text = models.TextField()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="guideline_number_unique")
        ]

    def __str__(self) -> str:
        return f"guidelines {self.number} of {self.project}"


class Split(models.TextChoices):
    TRAIN = "train", "train"
    VALIDATION = "validation", "validation"
    HELD_OUT = "held_out", "held-out"


class Prompt(Identified):
    """A conversation that waits for its next assistant turn.

    `split` is a function of `group_hash`, the hash of the normalised first user turn: rewrites in
    case, white space or Unicode form, and conversations that go on from each other, share a side.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages = models.JSONField(help_text='[{"role": "user", "content": "…"}, …]')
    content_hash = models.CharField(max_length=64)
    group_hash = models.CharField(max_length=64, db_index=True)
    split = models.CharField(max_length=20, choices=Split.choices)
    tags = models.JSONField(default=list, blank=True)
    source = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["project", "split"], name="prompt_split")]
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="prompt_unique")
        ]

    def __str__(self) -> str:
        return str(self.messages[-1]["content"])[:80]


class CandidateBatch(Identified):
    """A request that a version answer prompts, and the run that does it."""

    class Purpose(models.TextChoices):
        RANKING = "ranking", "to be ranked"
        IMPROVING = "improving", "to be selected from"
        EVALUATING = "evaluating", "to be evaluated"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="batches")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="batch")
    overlap = models.PositiveSmallIntegerField(
        default=0, help_text="people wanted for each task; 0 makes no tasks"
    )
    priority = models.IntegerField(default=0)
    ingested_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "candidate batches"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"batch {self.uid[:8]} by {self.version}"


class Candidate(Identified):
    """One answer to one prompt, by a model version or a person, with how it was decoded."""

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="candidates")
    batch = models.ForeignKey(
        CandidateBatch, on_delete=models.PROTECT, null=True, blank=True, related_name="candidates"
    )
    index = models.PositiveIntegerField(default=0, help_text="its place among the prompt's samples")
    text = models.TextField()
    version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="candidates"
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    decoding = models.JSONField(default=dict, help_text="engine, temperature, top_p, seed, …")
    token_count = models.PositiveIntegerField(null=True, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    mean_logprob = models.FloatField(null=True, blank=True, help_text="nats per token")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["batch", "prompt", "index"], name="candidate_index_unique"
            )
        ]

    def __str__(self) -> str:
        return self.text[:80]


class Task(Identified):
    """Something to judge. `slots_free` is what its overlap has left; the database keeps it ≥ 0.

    A slot is taken by a conditional update when the task is handed out, stays taken by the
    submission, and comes back when an assignment is skipped or expires.
    """

    class Kind(models.TextChoices):
        RANKING = "ranking", "ranking"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="tasks")
    batch = models.ForeignKey(
        CandidateBatch, on_delete=models.PROTECT, null=True, blank=True, related_name="tasks"
    )
    overlap = models.PositiveSmallIntegerField()
    slots_free = models.SmallIntegerField()
    priority = models.IntegerField(default=0)
    closed_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="no longer handed out, for example when its round has frozen",
    )

    class Meta:
        ordering = ["-priority", "id"]
        indexes = [
            models.Index(
                fields=["project", "-priority", "id"],
                name="task_open",
                condition=Q(slots_free__gt=0, closed_at__isnull=True),
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(slots_free__gte=0) & Q(slots_free__lte=F("overlap")),
                name="task_slots_within_overlap",
            ),
            models.UniqueConstraint(fields=["batch", "prompt", "kind"], name="task_unique"),
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
        LIVE = "live", "live"
        SUBMITTED = "submitted", "submitted"
        SKIPPED = "skipped", "skipped"
        EXPIRED = "expired", "expired"

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="assignments")
    annotator = models.ForeignKey(Membership, on_delete=models.PROTECT, related_name="assignments")
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
                condition=Q(state__in=["live", "expired"]),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["task", "annotator"], name="assignment_unique")
        ]

    def __str__(self) -> str:
        return f"{self.annotator_id} on {self.task_id}"


class Submission(Identified):
    """A judgement. `accepted` counts; `surplus` came after the overlap was filled."""

    class Status(models.TextChoices):
        ACCEPTED = "accepted", "accepted"
        SURPLUS = "surplus", "surplus"
        REJECTED = "rejected", "rejected"
        WITHDRAWN = "withdrawn", "withdrawn"

    assignment = models.OneToOneField(
        Assignment, on_delete=models.PROTECT, related_name="submission"
    )
    task = models.ForeignKey(Task, on_delete=models.PROTECT, related_name="submissions")
    annotator = models.ForeignKey(Membership, on_delete=models.PROTECT, related_name="submissions")
    status = models.CharField(max_length=20, choices=Status.choices)
    is_simulated = models.BooleanField(default=False)
    shown_order = models.JSONField(help_text="candidate uids, as the annotator saw them")
    active_s = models.FloatField(default=0)
    rationale = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["task", "annotator"], name="submission_unique")
        ]

    def __str__(self) -> str:
        return f"submission {self.uid[:8]}"


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


class PreferenceDataset(Identified):
    """A frozen snapshot of a project's judgements: query, counts, artifact of rows."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="datasets")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, default="ranking")
    query = models.JSONField()
    counts = models.JSONField()
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="datasets")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="dataset_number_unique")
        ]

    def __str__(self) -> str:
        return f"{self.project} dataset {self.number}"
