"""The loop: campaigns of rounds, each a walk from one policy to the next."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models import CandidateBatch, PreferenceDataset, Project
from modelhub.models import Artifact, Identified, Model, ModelVersion, Run


class Campaign(Identified):
    """The improvement of one policy on one project, round after round."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="campaigns")
    name = models.CharField(max_length=120)
    base_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    policy_model = models.ForeignKey(
        Model, on_delete=models.PROTECT, related_name="+", help_text="its versions are the policies"
    )
    reward_model = models.ForeignKey(
        Model, on_delete=models.PROTECT, related_name="+", help_text="its versions are the rewards"
    )
    champion_alias = models.SlugField(max_length=40, default="champion")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Round(Identified):
    """One refresh: sample, annotate, freeze, reward, improve, evaluate, decide."""

    class State(models.TextChoices):
        PLANNED = "planned", _("planned")
        SAMPLING = "sampling", _("sampling")
        ANNOTATING = "annotating", _("annotating")
        FREEZING = "freezing", _("freezing")
        REWARD = "reward", _("reward model")
        IMPROVING = "improving", _("improving")
        EVALUATING = "evaluating", _("evaluating")
        DECIDING = "deciding", _("deciding")
        PROMOTED = "promoted", _("promoted")
        REJECTED = "rejected", _("rejected")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    ENDED = (State.PROMOTED, State.REJECTED, State.FAILED, State.CANCELLED)

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=20, choices=State.choices, default=State.PLANNED)
    lap = models.PositiveSmallIntegerField(
        default=1, help_text="goes up each time labels are asked for again"
    )
    failed_in = models.CharField(max_length=20, choices=State.choices, blank=True)
    error = models.TextField(blank=True)
    recipe = models.JSONField(help_text="alignment.recipe.Recipe as JSON")
    launch_key = models.CharField(max_length=64, help_text="a form is worth one round")
    policy_in = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rounds_in")
    policy_out = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="rounds_out"
    )
    reward_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    batch = models.ForeignKey(
        CandidateBatch,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="the candidates people rank",
    )
    dataset = models.ForeignKey(
        PreferenceDataset, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["campaign", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "number"], name="round_number_unique"),
            models.UniqueConstraint(fields=["campaign", "launch_key"], name="round_launch_unique"),
            models.UniqueConstraint(
                fields=["campaign"],
                condition=~Q(state__in=["promoted", "rejected", "failed", "cancelled"]),
                name="round_one_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign} round {self.number}"

    @property
    def is_ended(self) -> bool:
        return self.state in self.ENDED


class RoundRun(models.Model):
    """A run a stage of a round started: one of each role in each lap, however often it is asked."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="round_runs")
    lap = models.PositiveSmallIntegerField(default=1)
    stage = models.CharField(max_length=20, choices=Round.State.choices)
    role = models.CharField(max_length=40)
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="round_run")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["round", "lap", "stage", "role"], name="round_run_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.role} of {self.round}"


class StageEvent(models.Model):
    """One arrow of a round, walked: who, when, why."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="events")
    before = models.CharField(max_length=20, choices=Round.State.choices)
    after = models.CharField(max_length=20, choices=Round.State.choices)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.before} → {self.after}"


class Evaluation(Identified):
    """What a new policy was worth beside the one it came from, on held-out prompts."""

    round = models.OneToOneField(Round, on_delete=models.CASCADE, related_name="evaluation")
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+")
    before = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    metrics = models.JSONField()
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return f"{self.after} against {self.before}"
