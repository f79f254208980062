"""Prompts, the candidates written for them, and what people said of those.

Knows model versions (who wrote a candidate), and no reward model or round.
"""

import random

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import ExpressionWrapper, F, Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.models import Artifact, Identified, ModelVersion, Run


class Project(Identified):
    """A body of prompts and the people who judge the answers to them."""

    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)

    class Order(models.TextChoices):
        PRIORITY = "priority", _("by priority, oldest first")
        RANDOM = "random", _("at random")
        LEAST_COVERED = "least_covered", _("those that fewest people have judged")
        DOUBT = "doubt", _("those the reward model is least sure of")

    queue_order = models.CharField(max_length=20, choices=Order.choices, default=Order.PRIORITY)
    gold_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(0.5)],
        help_text="the share of handed-out tasks whose answer is known, mixed in secretly",
    )
    qualification_pass = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="the mean score on the qualification tasks that admits to real work",
    )
    mirrored_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(0.5)],
        help_text="the share of handed-out tasks that are a pair of one's own, sides swapped",
    )
    skips_to_review = models.PositiveSmallIntegerField(
        default=3, help_text="people who skip a task before a reviewer looks at it; 0 for never"
    )
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
        ANNOTATOR = "annotator", _("annotator")
        REVIEWER = "reviewer", _("reviewer")
        MANAGER = "manager", _("manager")

    class Source(models.TextChoices):
        PERSON = "person", _("a person")
        SIMULATED = "simulated", _("a simulated annotator")
        MODEL = "model", _("a judge model")
        PRODUCT = "product", _("the users of a product")

    PROGRAMS = (Source.SIMULATED, Source.MODEL)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=20, choices=Role.choices, default=Role.ANNOTATOR)
    source = models.CharField(
        max_length=20,
        choices=Source.choices,
        default=Source.PERSON,
        help_text="whose judgement it is: every label carries it, for ever",
    )
    qualified_at = models.DateTimeField(
        null=True, blank=True, help_text="passed the qualification test, or was let in without it"
    )
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="left the project; the work stays, the access is gone"
    )
    guideline_read = models.PositiveIntegerField(
        default=0, help_text="the newest version of the guidelines that they opened; 0 for none"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}) in {self.project}"

    @property
    def is_simulated(self) -> bool:
        """Whether a program labels here and not a person."""
        return self.source in self.PROGRAMS


class KeyBindings(models.Model):
    """The keys that one person has changed on the annotator's page, in every project.

    `keys` are those that differ from annotation/desk_keys.py: {"<action>": "<key>", …}.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    keys = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "key bindings"

    def __str__(self) -> str:
        return f"keys of {self.user}"


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
    TRAIN = "train", _("train")
    VALIDATION = "validation", _("validation")
    HELD_OUT = "held_out", _("held-out")


class Prompt(Identified):
    """A conversation that waits for its next assistant turn.

    `split` is a function of `group_hash`, the hash of the normalised first user turn: rewrites in
    case, white space or Unicode form, and conversations that go on from each other, share a side.
    """

    OF_DIALOGUE = "a dialogue task"  # the source of what an annotator wrote to a live model

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


class Proposal(Identified):
    """A prompt that a model has written, until a person accepts or rejects it.

    What was rejected stays, so that it is not proposed again.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        ACCEPTED = "accepted", _("accepted")
        REJECTED = "rejected", _("rejected")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="proposals")
    text = models.TextField()
    content_hash = models.CharField(max_length=64)
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=20, choices=State.choices, default=State.WAITING)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(
                fields=["project", "id"], name="proposal_waiting", condition=Q(state="waiting")
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="proposal_unique")
        ]

    def __str__(self) -> str:
        return self.text[:80]


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


class CandidateBatch(Identified):
    """A request that a version answer prompts, and the run that does it."""

    class Purpose(models.TextChoices):
        RANKING = "ranking", _("to be ranked")
        IMPROVING = "improving", _("to be selected from")
        EVALUATING = "evaluating", _("to be evaluated")

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


class Submission(Identified):
    """A judgement. `accepted` counts; `surplus` came after the overlap was filled."""

    class Status(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
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
        KEEP = "keep", "kept"
        RETIRE = "retire", "retired"

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


class Notification(Identified):
    """A line for one person: a question asked or answered, work sent back."""

    recipient = models.ForeignKey(
        Membership, on_delete=models.CASCADE, related_name="notifications"
    )
    text = models.CharField(
        max_length=300, help_text="in English, with %(name)s where a value stands"
    )
    values = models.JSONField(default=dict, blank=True)
    path = models.CharField(max_length=300, help_text="the page it is about, from /")
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["recipient"], name="notification_unread", condition=Q(read_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return self.line

    @property
    def line(self) -> str:
        """What it says, in the language of its reader; as it was written where it has no values."""
        return gettext(self.text) % self.values if self.values else self.text


class ProjectToken(Identified):
    """Lets a product send its users' feedback to one project. Only the token's digest is stored."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=120)
    token_sha256 = models.CharField(max_length=64, unique=True)
    membership = models.ForeignKey(
        Membership, on_delete=models.PROTECT, related_name="+", help_text="as whom it submits"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


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
