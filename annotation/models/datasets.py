"""Frozen snapshots of a project's judgements."""

from django.conf import settings
from django.db import models

from annotation.models.projects import Project
from modelhub.models import Artifact, Identified


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
