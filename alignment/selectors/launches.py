"""What a method can be launched with: versions and rows, by the names people know them by."""

import re
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from alignment.methods import Input
from annotation.models import PreferenceDataset, Project, Prompt
from annotation.policy import projects_managed
from modelhub.errors import ApplicationError
from modelhub.models import Artifact, ModelVersion, Run, RunOutput
from modelhub.selectors.naming import NAMED, output_name, run_mark

MAX_CHOICES = 200  # of each kind, newest first
ROWS = {
    "open": _("open tasks"),
    "judged": _("tasks that people have judged"),
    "prompts": _("its prompts to train on"),
    "train": _("its prompts to train on"),
    "validation": _("its prompts for validation"),
    "held_out": _("its held-out prompts"),
}
_OF_PROJECT = re.compile(r"project/(?P<project>[0-9a-f]{32})/(?P<which>[a-z_]+)")
_REFERENCE = re.compile(
    r"version/(?P<version>[0-9a-f]{32})|dataset/(?P<dataset>[0-9a-f]{32})"
    r"|run/(?P<run>[0-9a-f]{32})/(?P<role>[a-z][a-z0-9_]{0,39})"
    r"|(?P<model>[-\w]{1,80})@(?P<number>[0-9]{1,9})"
)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An input as it was found: the artifact, and its version if it is one."""

    artifact: Artifact
    version: ModelVersion | None = None


def input_choices(*, input: Input, user: User) -> list[tuple[str, str]]:
    """(reference, name) of everything that fits, newest first. A constant number of queries.

    Rows of projects and datasets are those of projects the person manages; runs and versions are
    the hub's. Of prompts a project is offered by the sides on which it has some.
    """
    found = _of_projects(input, user)
    found += [
        (f"version/{version.uid}", f"{version}, {version.role}")
        for version in _fitting(input).select_related("model").order_by("-pk")[:MAX_CHOICES]
    ]
    if not input.kinds:
        return found
    found += [
        (f"dataset/{dataset.uid}", f"{dataset}, {dataset.kind}")
        for dataset in _datasets(user)
        .filter(artifact__kind__in=input.kinds)
        .select_related("project")
        .order_by("-pk")[:MAX_CHOICES]
    ]
    outputs = RunOutput.objects.filter(artifact__kind__in=input.kinds, run__status="succeeded")
    if not input.is_word_list:
        outputs = outputs.exclude(artifact__in=_word_lists())
    found += [
        (f"run/{output.run.uid}/{output.role}", output_name(output))
        for output in outputs.select_related("run", "artifact")
        .prefetch_related(*NAMED)
        .order_by("-pk")[:MAX_CHOICES]
    ]
    if "prompts" in input.kinds:  # no run writes prompts: those that an earlier one read
        earlier = Run.objects.filter(program="generate", inputs__role="prompts")
        found += [
            (
                f"run/{run.uid}/prompts",
                gettext("prompts of %(run)s") % {"run": f"{run.label or run} · {run_mark(run)}"},
            )
            for run in earlier.order_by("-pk")[:MAX_CHOICES]
        ]
    return found


def artifact_references(*, artifact: Artifact) -> set[str]:
    """Every reference by which a choice may offer an artifact that runs made. One query."""
    made = RunOutput.objects.filter(artifact=artifact).values_list("run__uid", "role")
    return {f"run/{uid}/{role}" for uid, role in made}


def _word_lists() -> QuerySet[RunOutput, Any]:
    """The artifacts that are lists of words: the newest import of the same says so.

    What a cleaning took for one is none by that: a wrong tick would hide a corpus for good.
    """
    imported = RunOutput.objects.filter(run__program="import_corpus")
    same = imported.filter(artifact=OuterRef("artifact")).order_by("-pk")
    newest = imported.filter(pk=Subquery(same.values("pk")[:1]))
    return newest.filter(run__config__is_word_list=True).values("artifact")


def _is_word_list(artifact: Artifact) -> bool:
    is_corpus = artifact.kind == Artifact.Kind.CORPUS
    return is_corpus and _word_lists().filter(artifact=artifact).exists()


def _of_projects(input: Input, user: User) -> list[tuple[str, str]]:
    if not input.of_project:
        return []
    projects = list(projects_managed(user).order_by("-pk")[:MAX_CHOICES])
    offered = [(project, which) for project in projects for which in input.of_project]
    if "prompts" in input.kinds:
        prompts = Prompt.objects.filter(project__in=projects)
        prompts = prompts.exclude(source__in=Prompt.NEVER_SAMPLED).order_by()
        sides = set(prompts.values_list("project_id", "split").distinct())
        offered = [(project, which) for project, which in offered if (project.pk, which) in sides]
    return [
        (f"project/{project.uid}/{which}", f"{project}: {ROWS[which]}")
        for project, which in offered
    ]


def input_resolve(*, input: Input, reference: str, user: User) -> Given:
    """What a reference names: "version/UID", "dataset/UID", "run/UID/ROLE" or "model@3".

    Raises ApplicationError, naming the role, for a reference to nothing the person may have, to
    something that does not fit, or to a list of words where none is read.
    """
    match = _REFERENCE.fullmatch(reference)
    given = _found(match, user) if match else None
    where = {"field": f"inputs.{input.role}"}
    if given is None:
        raise ApplicationError(f"{input.title}: there is no {reference!r}.", where)
    if given.version is not None:
        if given.version.role not in input.versions:
            wanted = " or ".join((*input.versions, *input.kinds))
            raise ApplicationError(
                f"{input.title}: {given.version} is a {given.version.role}; wanted {wanted}.", where
            )
        if input.artifact and given.artifact.kind != input.artifact:
            raise ApplicationError(
                f"{input.title}: {given.version} is a {given.artifact.kind} of its own; wanted an "
                f"{input.artifact}.",
                where,
            )
    elif given.artifact.kind not in input.kinds:
        wanted = " or ".join((*input.versions, *input.kinds))
        raise ApplicationError(
            f"{input.title}: {reference} holds {given.artifact.kind}; wanted {wanted}.", where
        )
    elif not input.is_word_list and _is_word_list(given.artifact):
        raise ApplicationError(
            gettext("%(input)s: %(reference)s was imported as a list of bad words.")
            % {"input": gettext(input.title), "reference": reference},
            where,
        )
    return given


def _fitting(input: Input) -> QuerySet[ModelVersion]:
    """The versions that fit an input."""
    found = ModelVersion.objects.filter(role__in=input.versions)
    return found.filter(artifact__kind=input.artifact) if input.artifact else found


def project_resolve(*, input: Input, reference: str, user: User) -> tuple[Project, str]:
    """The project, and which of its rows, that a reference such as "project/UID/open" names.

    Raises ApplicationError, naming the role, for a project that the person does not manage, and for
    rows that the input does not take.
    """
    match = _OF_PROJECT.fullmatch(reference)
    if match and match["which"] in input.of_project:
        project = projects_managed(user).filter(uid=match["project"]).first()
        if project is not None:
            return project, match["which"]
    raise ApplicationError(
        f"{input.title}: there is no {reference!r}.", {"field": f"inputs.{input.role}"}
    )


def _found(match: re.Match[str], user: User) -> Given | None:
    named = match.groupdict()
    if named["dataset"]:
        dataset = _datasets(user).select_related("artifact").filter(uid=named["dataset"]).first()
        return Given(artifact=dataset.artifact) if dataset else None
    if named["run"]:
        run = Run.objects.filter(uid=named["run"]).first()
        if run is None:
            return None
        file = (
            run.outputs.select_related("artifact").filter(role=named["role"]).first()
            or run.inputs.select_related("artifact").filter(role=named["role"]).first()
        )
        return Given(artifact=file.artifact) if file else None
    versions = ModelVersion.objects.select_related("artifact", "model")
    version = (
        versions.filter(uid=named["version"]).first()
        if named["version"]
        else versions.filter(model__name=named["model"], number=int(named["number"])).first()
    )
    return Given(artifact=version.artifact, version=version) if version else None


def _datasets(user: User) -> QuerySet[PreferenceDataset]:
    return PreferenceDataset.objects.filter(project__in=projects_managed(user))
