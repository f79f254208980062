"""Reading models, versions and aliases."""

from django.db.models import Count, Prefetch, QuerySet
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.models import Alias, AliasMove, Artifact, Model, ModelVersion, Run


def models_list() -> QuerySet[Model]:
    """Models by name, with `version_count`, versions (newest first) and aliases. Three queries."""
    return (
        Model.objects.annotate(version_count=Count("versions"))
        .prefetch_related(
            Prefetch(
                "versions", ModelVersion.objects.order_by("-number").select_related("artifact")
            ),
            Prefetch("aliases", Alias.objects.select_related("version").order_by("name")),
        )
        .order_by("name")
    )


def model_get(*, uid: str) -> Model | None:
    """One model as `models_list` gives it. Three queries."""
    return models_list().filter(uid=uid).first()


def alias_moves(*, model: Model, limit: int = 50) -> list[AliasMove]:
    """The moves of the model's aliases, newest first. One query."""
    moves = AliasMove.objects.filter(alias__model=model)
    return list(moves.select_related("alias", "before", "after", "actor").order_by("-pk")[:limit])


def version_get(*, uid: str) -> ModelVersion | None:
    """One version with its model, artifact, run and parent. Two queries."""
    return (
        ModelVersion.objects.select_related("model", "artifact", "run", "parent__model")
        .prefetch_related("aliases")
        .filter(uid=uid)
        .first()
    )


def versions_newest(*, limit: int) -> list[ModelVersion]:
    """The versions registered last, by model and number, with their models. One query."""
    newest = ModelVersion.objects.select_related("model").order_by("-pk")[:limit]
    return sorted(newest, key=lambda one: (one.model.name, -one.number))


def version_named(*, name: str) -> ModelVersion | None:
    """The version called "model@number" or "model@alias". One query, or two for an alias."""
    model, _, which = name.partition("@")
    versions = ModelVersion.objects.select_related("model", "artifact").filter(model__name=model)
    if which.isascii() and which.isdecimal() and len(which) < 10:
        return versions.filter(number=int(which)).first()
    return versions.filter(aliases__name=which).first()


def version_is_adapter(version: ModelVersion) -> bool:
    """Whether a version is read on its parent: a policy's adapter says so by its role, a reward
    model's is a reward model all the same. No query where its artifact is loaded."""
    is_kind = version.artifact.kind == Artifact.Kind.ADAPTER
    return is_kind or version.role == ModelVersion.Role.ADAPTER


def version_inputs(*, version: ModelVersion, role: str) -> dict[str, Artifact]:
    """What a run is given to read the version in a role: of an adapter its base too, `<role>_base`.

    One query for an adapter. Raises ApplicationError for an adapter without a parent, which is its
    base; that it is the base it was trained on, the program holds its hash against.
    """
    inputs = {role: version.artifact}
    if version_is_adapter(version):
        if version.parent is None:
            raise ApplicationError(
                gettext("%(version)s is an adapter, and no version is its base.")
                % {"version": version}
            )
        inputs[f"{role}_base"] = version.parent.artifact
    return inputs


def version_children(*, version: ModelVersion) -> list[ModelVersion]:
    """The versions made from this one, directly. One query."""
    return list(version.children.select_related("model").order_by("pk"))


def artifact_evaluations(*, artifact: Artifact, limit: int = 5) -> list[Run]:
    """The evaluations that read an artifact and succeeded, newest first. One query."""
    runs = Run.objects.filter(
        program="evaluate", status=Run.Status.SUCCEEDED, inputs__artifact=artifact
    )
    return list(runs.distinct().order_by("-pk")[:limit])


def artifact_readers(*, artifact: Artifact, limit: int = 50) -> list[Run]:
    """The runs that read an artifact, newest first, with the versions they made. Two queries."""
    runs = Run.objects.filter(inputs__artifact=artifact).distinct().order_by("-pk")
    return list(runs.prefetch_related("versions__model")[:limit])
