"""Prompts, and the candidates written for them."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project
from modelhub.models import Artifact, Identified, ModelVersion, Run


class Split(models.TextChoices):
    TRAIN = "train", _("train")
    VALIDATION = "validation", _("validation")
    HELD_OUT = "held_out", _("held-out")


class Prompt(Identified):
    """A conversation that waits for its next assistant turn.

    `split` is a function of `group_hash`, the hash of the normalised first user turn: rewrites in
    case, white space or Unicode form, and conversations that go on from each other, share a side.
    """

    # Sources of what is no question for a model: no round samples answers to it.
    OF_DIALOGUE = "a dialogue task"  # what an annotator wrote to a live model
    OF_CORPUS = "a corpus"  # people are asked what they think of a document
    NEVER_SAMPLED = (OF_DIALOGUE, OF_CORPUS)

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
        return _excerpt(str(self.messages[-1]["content"]))


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


IMPORT_ENGINE = "import"  # what decoding says of an answer that a file brought


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
        return _excerpt(self.text)


IMPORTED = models.Q(batch__isnull=True, decoding__engine=IMPORT_ENGINE)


class SampledDocument(models.Model):
    """A document of a corpus that people are asked about: the candidate that shows its text.

    What they say goes down to the hub as judgements of the document.
    """

    candidate = models.OneToOneField(
        Candidate, on_delete=models.CASCADE, primary_key=True, related_name="document"
    )
    corpus = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="+")
    place = models.PositiveBigIntegerField(help_text="of the document, counted from 0")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["corpus", "place"], name="sampled_document_unique")
        ]

    def __str__(self) -> str:
        return f"place {self.place} of {self.corpus}"


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
                fields=["project", "id"],
                name="proposal_waiting",
                condition=models.Q(state="waiting"),
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="proposal_unique")
        ]

    def __str__(self) -> str:
        return _excerpt(self.text)


def _excerpt(text: str) -> str:
    """The beginning of a text; what was cut off shows as three dots."""
    return text if len(text) <= 80 else f"{text[:79].rstrip()}…"
