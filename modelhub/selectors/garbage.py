"""What the hub could do without: versions nothing refers to, and files that belong to nothing.

Asked of the database's own foreign keys, from every app: what refers to a version or an artifact
keeps it, whichever app it is and however new.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Max, Model
from django.utils import timezone

from modelhub import storage
from modelhub.models import Artifact, ModelVersion, RunInput, RunOutput, Server

# Only these are ever removed: what people wrote, and what was made of it, is not the hub's.
WEIGHTS = (Artifact.Kind.MODEL, Artifact.Kind.ADAPTER, Artifact.Kind.GGUF)


@dataclass(frozen=True, kw_only=True)
class GarbagePlan:
    """What would go, largest first, and what that frees."""

    versions: list[ModelVersion]
    artifacts: list[Artifact]  # with the last of the versions that have them
    folders: list[tuple[str, int]]  # (name, bytes) of stored files that no artifact names

    @property
    def freed_bytes(self) -> int:
        of_artifacts = sum(artifact.size_bytes for artifact in self.artifacts)
        return of_artifacts + sum(size for _, size in self.folders)


def garbage_plan(*, older_than: timedelta) -> GarbagePlan:
    """Versions and weights that nothing keeps and that are older than that.

    A version is kept by an alias or an alias's past, a version made from it, a run that reads it, a
    server that serves it, a round, campaign, candidate or anything else that refers to it, and by
    being its model's newest. Weights are kept by their versions and by everything that refers to
    them but the run that made them. One query for each kind of reference.
    """
    before = timezone.now() - older_than
    old = ModelVersion.objects.filter(created_at__lt=before).select_related("model", "artifact")
    candidates = list(old.filter(artifact__kind__in=WEIGHTS))
    kept = versions_kept(candidates)
    versions = [version for version in candidates if version.pk not in kept]
    going = {version.pk for version in versions}
    weights = {version.artifact_id: version.artifact for version in versions}
    unnamed = Artifact.objects.filter(kind__in=WEIGHTS, created_at__lt=before, versions=None)
    # What a run has made and nobody registered may still be registered.
    weights |= {one.pk: one for one in unnamed.exclude(made_by__isnull=False)}
    kept_weights = artifacts_kept(weights, versions_going=going)
    artifacts = [one for pk, one in weights.items() if pk not in kept_weights]
    return GarbagePlan(
        versions=sorted(versions, key=lambda one: (-one.artifact.size_bytes, one.pk)),
        artifacts=sorted(artifacts, key=lambda one: (-one.size_bytes, one.pk)),
        folders=storage.contents_unnamed(),
    )


def versions_kept(versions: Iterable[ModelVersion]) -> set[int]:
    """Which of these versions something keeps, by key. One query for each kind of reference."""
    asked = list(versions)
    kept = _referred(ModelVersion, {one.pk for one in asked}, without=(Server,))
    live = Server.objects.exclude(status=Server.Status.ENDED).filter(version__in=asked)
    kept |= set(live.values_list("version", flat=True))
    newest = dict(
        ModelVersion.objects.filter(model__in={one.model_id for one in asked})
        .order_by()
        .values_list("model")
        .annotate(Max("number"))
    )
    kept |= {one.pk for one in asked if one.number == newest.get(one.model_id)}
    read = set(
        RunInput.objects.filter(artifact__in={one.artifact_id for one in asked}).values_list(
            "artifact", flat=True
        )
    )
    return kept | {one.pk for one in asked if one.artifact_id in read}


def artifacts_kept(artifacts: Iterable[int], *, versions_going: set[int]) -> set[int]:
    """Which of these artifacts something keeps, beside versions that go and the runs that made
    them. One query for each kind of reference."""
    asked = set(artifacts)
    staying = ModelVersion.objects.filter(artifact__in=asked).exclude(pk__in=versions_going)
    kept = set(staying.values_list("artifact", flat=True))
    return kept | _referred(Artifact, asked, without=(ModelVersion, RunOutput))


def _referred(
    cls: type[Model], keys: set[int], *, without: tuple[type[Model], ...] = ()
) -> set[int]:
    """Which rows of a class another row of any app points at."""
    found: set[int] = set()
    for relation in cls._meta.related_objects:
        if relation.related_model in without:
            continue
        name = relation.field.name
        rows = relation.related_model._default_manager.filter(**{f"{name}__in": keys})
        found |= set(rows.order_by().values_list(name, flat=True).distinct())
    return found
