"""What everything is made from, by or for: artifacts, versions, and the runs between them.

The hub knows no prompt, ranking or round.
"""

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


def uid_new() -> str:
    """A server-made, opaque public identifier: 32 hexadecimal characters, also safe as a path."""
    return uuid.uuid4().hex


class Identified(models.Model):
    """A row that people and URLs name by an opaque `uid`; its integer key stays inside."""

    uid = models.CharField(max_length=32, unique=True, default=uid_new, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True


class Artifact(models.Model):
    """An immutable folder of files, named by the sha256 of its manifest (file → sha256, bytes)."""

    class Kind(models.TextChoices):
        MODEL = "model", _("model")
        ADAPTER = "adapter", _("adapter")
        PROMPTS = "prompts", _("prompts")
        CANDIDATES = "candidates", _("candidates")
        RANKINGS = "rankings", _("rankings")
        RATINGS = "ratings", _("ratings")
        DEMONSTRATIONS = "demonstrations", _("demonstrations")
        EVALUATION = "evaluation", _("evaluation")
        REFERENCES = "references", _("references")
        CORPUS = "corpus", _("corpus")
        TOKENIZER = "tokenizer", _("tokenizer")
        TOKENS = "tokens", _("tokens")
        GGUF = "gguf", _("GGUF file")

    sha256 = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    uri = models.CharField(max_length=500)
    manifest = models.JSONField()
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    verified_at = models.DateTimeField(
        null=True, blank=True, db_index=True, help_text="when its files were last hashed"
    )
    damage = models.TextField(blank=True, help_text="what that found changed; empty: nothing")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"


class Model(Identified):
    """A named line of versions."""

    name = models.SlugField(max_length=80, unique=True)
    description = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ModelVersion(Identified):
    """One set of weights: what it is, what it came from, and the run that made it."""

    class Role(models.TextChoices):
        BASE = "base", _("base")
        POLICY = "policy", _("policy")
        REWARD = "reward", _("reward")
        CRITIC = "critic", _("critic")
        ADAPTER = "adapter", _("adapter")
        QUANTISED = "quantised", _("quantised")  # for serving; nothing is trained from it

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    role = models.CharField(max_length=20, choices=Role.choices)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="versions")
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )
    run = models.ForeignKey(
        "Run", on_delete=models.PROTECT, null=True, blank=True, related_name="versions"
    )
    architecture = models.CharField(max_length=100)
    parameters = models.BigIntegerField(help_text="number of weights")
    dtype = models.CharField(max_length=20)
    context_tokens = models.PositiveIntegerField()
    chat_template = models.TextField(blank=True)
    card = models.TextField(blank=True, help_text="what a reader should know before using it")
    facts = models.JSONField(default=dict, blank=True, help_text="measured numbers")

    class Meta:
        ordering = ["model", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="version_number_unique")
        ]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"


class Alias(models.Model):
    """A movable name for a version of a model, for example `champion`. Its moves are kept."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="aliases")
    name = models.SlugField(max_length=40)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        verbose_name_plural = "aliases"
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="alias_unique")]

    def __str__(self) -> str:
        return f"{self.model.name}@{self.name}"


class AliasMove(models.Model):
    """One move of an alias: from which version, to which, by whom, why."""

    alias = models.ForeignKey(Alias, on_delete=models.CASCADE, related_name="moves")
    before = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    after = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.alias} → v{self.after.number}"


class Endpoint(Identified):
    """An OpenAI-compatible server (vLLM or another) that writes candidates."""

    name = models.SlugField(max_length=80, unique=True)
    base_url = models.URLField(help_text="for example http://127.0.0.1:8001/v1")
    served_model = models.CharField(max_length=200, help_text="the model name the server expects")
    api_key_variable = models.CharField(
        max_length=80,
        blank=True,
        help_text="the environment variable that holds the key; the key itself is never stored",
    )
    version = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="endpoints",
        help_text="the version it serves, where it is one of ours",
    )

    def __str__(self) -> str:
        return self.name


class Server(Identified):
    """A version that is served on one machine, from the asking to its end.

    The row says what is wanted; the keeper of a machine that runs programs (modelhub/keeper.py)
    takes it up, makes it so and tells what has become of it.
    """

    class Status(models.TextChoices):
        WAITING = "waiting", _("waiting")
        STARTING = "starting", _("starting")
        READY = "ready", _("ready")
        ENDED = "ended", _("ended")

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="servers")
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.WAITING)
    context_tokens = models.PositiveIntegerField(help_text="prompt and answer together, at most")
    cache_bytes = models.BigIntegerField(help_text="memory for keys and values")
    memory_bytes = models.BigIntegerField(help_text="memory it is expected to take, all in all")
    host = models.CharField(max_length=200, blank=True, help_text="the machine that took it up")
    process = models.CharField(
        max_length=80, blank=True, help_text="id and start of its process, as the kernel tells them"
    )
    port = models.PositiveIntegerField(null=True, blank=True)
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    seen_at = models.DateTimeField(null=True, blank=True, help_text="last looked after")
    stop_asked_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="why it ended, unless it was asked to")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["version"], condition=~Q(status="ended"), name="server_one_a_version"
            )
        ]

    def __str__(self) -> str:
        return f"server of {self.version}"

    @property
    def is_live(self) -> bool:
        return self.status != self.Status.ENDED

    @property
    def is_lost(self) -> bool:
        """Whether the machine that took it up has not looked after it for longer than it lives."""
        return self.is_silent(leases=1)

    def is_silent(self, *, leases: int) -> bool:
        """Whether the machine that took it up has not looked after it for so many leases."""
        lease = timedelta(seconds=settings.SERVER_LEASE_S)
        seen = self.seen_at or self.created_at
        return self.is_live and bool(self.host) and timezone.now() - seen > leases * lease


class DocumentJudgement(models.Model):
    """What one person says of a document of a corpus: whether it is good to learn from.

    A corpus is its content, so a document's place in it is the document. Of what a person said at
    several origins the newest stands, and where that is taken back, the one before it.
    """

    corpus = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="judgements")
    place = models.PositiveBigIntegerField(help_text="of the document, counted from 0")
    is_good = models.BooleanField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    origin = models.CharField(
        max_length=80,
        blank=True,
        help_text="where it was said, in the words of whoever asked; empty: on the corpus's pages",
    )
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["corpus", "place", "author", "origin"], name="document_judgement_unique"
            )
        ]

    def __str__(self) -> str:
        return f"place {self.place} of {self.corpus}"


class Run(Identified):
    """One execution of a program in a directory of its own. The row is the queue.

    A worker owns a running row while its lease lasts and `fence` is the number it claimed with;
    every write of a worker names the fence, so a worker that lost the row writes nothing.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    ELSEWHERE = "another machine"  # the owner of a run that is exported (modelhub/exports.py)

    program = models.CharField(max_length=40)
    config = models.JSONField()
    label = models.CharField(max_length=200, blank=True, help_text="what it is for, in words")
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.QUEUED)
    queue = models.CharField(max_length=20, default="cpu")
    launcher = models.CharField(max_length=20, default="python")
    processes = models.PositiveSmallIntegerField(
        default=1, help_text="that train one model together"
    )
    strategy = models.CharField(
        max_length=20, default="ddp", help_text="what each process holds of the model"
    )
    intent = models.JSONField(
        default=dict, blank=True, help_text="what its success registers, chosen at launch"
    )
    fence = models.PositiveIntegerField(default=0, help_text="times it was claimed")
    attempts_left = models.PositiveSmallIntegerField(default=3)
    owner = models.CharField(max_length=200, blank=True, help_text="host:pid of the worker")
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    rung_at = models.DateTimeField(
        null=True, blank=True, help_text="when a worker was last told that it waits"
    )
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    progress_done = models.BigIntegerField(default=0)
    progress_total = models.BigIntegerField(default=0)
    progress_unit = models.CharField(max_length=40, blank=True)
    metrics_offset = models.BigIntegerField(default=0, help_text="bytes of metrics.jsonl read")
    result = models.JSONField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="the end of the log, when it failed")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["status", "lease_until"],
                name="run_live",
                condition=Q(status__in=["queued", "running"]),
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(status="succeeded") | Q(result__isnull=False),
                name="run_success_has_result",
            )
        ]

    def __str__(self) -> str:
        return f"{self.program} {self.uid[:8]}"

    @property
    def is_ended(self) -> bool:
        return self.status in self.ENDED

    @property
    def is_refused(self) -> bool:
        """Whether its program refused what was asked, as it would again unless that changes."""
        told = ("refused: ", "what follows the run was refused: ")
        return self.status == self.Status.FAILED and self.error.startswith(told)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was handed out: no worker runs it, its folder is taken to another machine."""
        return self.status == self.Status.RUNNING and self.owner == self.ELSEWHERE


class RunInput(models.Model):
    """An artifact a run reads, under the role its program knows it by."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="inputs")
    role = models.CharField(max_length=40)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="read_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "role"], name="run_input_unique")]

    def __str__(self) -> str:
        return f"{self.role} of {self.run}"


class RunOutput(models.Model):
    """An artifact a run made."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="outputs")
    role = models.CharField(max_length=40)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="made_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "role"], name="run_output_unique")]

    def __str__(self) -> str:
        return f"{self.role} of {self.run}"


class RunMetric(models.Model):
    """One number at one step. A resumed run repeats steps exactly, so repeats are ignored."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    step = models.BigIntegerField()
    name = models.CharField(max_length=80)
    value = models.FloatField()

    class Meta:
        ordering = ["step"]
        constraints = [
            models.UniqueConstraint(fields=["run", "name", "step"], name="run_metric_unique")
        ]

    def __str__(self) -> str:
        return f"{self.name} at {self.step}"


class RuleSet(Identified):
    """Thresholds of the cleaning rules, numbered: a changed set is a new number, never an edit."""

    name = models.SlugField(max_length=80)
    number = models.PositiveIntegerField()
    thresholds = models.JSONField(help_text="rule, or rule@zh for Chinese → threshold")
    note = models.CharField(max_length=300, blank=True)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["name", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["name", "number"], name="rule_set_number_unique")
        ]

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


class SavedMixture(Identified):
    """Token sets, and what a pretraining run reads of each: numbered, never edited.

    Its blends are the history of the shares over the run it was planned for.
    """

    name = models.SlugField(max_length=80)
    number = models.PositiveIntegerField()
    tokens = models.BigIntegerField(help_text="of the run it was planned for")
    block_tokens = models.PositiveIntegerField()
    blocks_per_step = models.PositiveIntegerField()
    blends = models.JSONField(
        help_text="in order: first step, how shares were chosen, shares, and as they are sampled"
    )
    note = models.CharField(max_length=300, blank=True)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["name", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["name", "number"], name="mixture_number_unique")
        ]

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def steps(self) -> int:
        return self.tokens // (self.block_tokens * self.blocks_per_step)


class MixtureSource(models.Model):
    """A token set of a saved mixture, in the order of its shares."""

    mixture = models.ForeignKey(SavedMixture, on_delete=models.CASCADE, related_name="sources")
    place = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=200)
    output = models.ForeignKey(RunOutput, on_delete=models.PROTECT, related_name="mixed_in")
    epoch_cap = models.FloatField(default=0, help_text="times it is read at most; 0: no cap")
    kind = models.CharField(
        max_length=40, blank=True, help_text="what it stands for in a published table"
    )

    class Meta:
        ordering = ["place"]
        constraints = [
            models.UniqueConstraint(fields=["mixture", "place"], name="mixture_place_unique")
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.mixture}"


class IdempotentRequest(models.Model):
    """The reply once given under an Idempotency-Key, so that a retry changes nothing."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key = models.CharField(max_length=200)
    request_sha256 = models.CharField(max_length=64)
    response: Any = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_unique")
        ]

    def __str__(self) -> str:
        return self.key
