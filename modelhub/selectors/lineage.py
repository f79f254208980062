"""Where a version comes from, all the way up, and whether that is still what it was.

The hub's part of a lineage: versions, runs and artifacts. What a snapshot was made of lies above,
and is compared by those whom settings.LINEAGE_CHECKS names.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from modelhub import storage
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.sources import source_sha256
from modelhub.models import Artifact, ModelVersion, Run, RunInput, RunOutput
from modelhub.selectors.naming import NAMED, output_title

_ABSENT = object()


@dataclass(kw_only=True)
class LineageNode:
    """An artifact, the versions it is known as, and how it was made.

    `role` is the name by which the run below read it, `title` what people call it, where no version
    names it (lineage_titles). An artifact that appeared before is `is_repeated` and shows its own
    inputs there only.
    """

    role: str
    artifact: Artifact
    versions: list[ModelVersion] = field(default_factory=list)
    run: Run | None = None
    inputs: list["LineageNode"] = field(default_factory=list)
    is_repeated: bool = False
    title: str = ""


def version_lineage(*, version: ModelVersion) -> LineageNode:
    """All that the version was made of, as a tree with the version's artifact at its root.

    Costs three queries a generation.
    """
    root = LineageNode(role="", artifact=version.artifact)
    generation, seen = [root], {root.artifact.pk}
    while generation:
        generation = _generation_fill(generation, seen)
    return root


def _generation_fill(nodes: list[LineageNode], seen: set[int]) -> list[LineageNode]:
    """Find versions, run and inputs of each node; the inputs not seen before are the next."""
    artifacts = {node.artifact.pk for node in nodes}
    made: dict[int, Run] = {}
    for output in (
        RunOutput.objects.filter(artifact__in=artifacts).select_related("run").order_by("-pk")
    ):
        made[output.artifact_id] = output.run  # the earliest stays
    known: dict[int, list[ModelVersion]] = {}
    for version in (
        ModelVersion.objects.filter(artifact__in=artifacts).select_related("model").order_by("pk")
    ):
        known.setdefault(version.artifact_id, []).append(version)
    read: dict[int, list[RunInput]] = {}
    for given in (
        RunInput.objects.filter(run__in={run.pk for run in made.values()})
        .select_related("artifact")
        .order_by("role")
    ):
        read.setdefault(given.run_id, []).append(given)
    following = []
    for node in nodes:
        node.versions = known.get(node.artifact.pk, [])
        node.run = made.get(node.artifact.pk)
        for given in read.get(node.run.pk, []) if node.run else []:
            child = LineageNode(role=given.role, artifact=given.artifact)
            child.is_repeated = given.artifact_id in seen
            seen.add(given.artifact_id)
            node.inputs.append(child)
            if not child.is_repeated:
                following.append(child)
    return following


def lineage_nodes(root: LineageNode) -> Iterable[LineageNode]:
    """Every node of a lineage once, the root first."""
    yield root
    for node in root.inputs:
        if not node.is_repeated:
            yield from lineage_nodes(node)


def lineage_titles(root: LineageNode) -> None:
    """Give every artifact that is no version's its title, the repeated ones too.

    A constant number of queries.
    """
    unnamed: dict[int, list[LineageNode]] = {}
    for node in _all_nodes(root):
        if not node.versions:
            unnamed.setdefault(node.artifact.pk, []).append(node)
    outputs = RunOutput.objects.filter(artifact__in=unnamed).select_related("run", "artifact")
    for output in outputs.prefetch_related(*NAMED).order_by("-pk"):  # the earliest stays
        for node in unnamed[output.artifact_id]:
            node.title = output_title(output)


def _all_nodes(node: LineageNode) -> Iterable[LineageNode]:
    yield node
    for inner in node.inputs:
        yield from _all_nodes(inner)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something upstream that is not as it was: what, and how it differs."""

    subject: str
    message: str
    artifact: Artifact | None = None  # whose files are not what they were


def lineage_verify(*, version: ModelVersion) -> list[Difference]:
    """Hash everything the version was made of and compare it with what was written down then.

    Each artifact's bytes with its manifest; each run's program, configuration, inputs and source
    files with the origin its output's name covers; the version's chat template with its files';
    each snapshot with the judgements it was made of. Returns what differs; nothing means that all
    is as it was. Reads every byte upstream.
    """
    root = version_lineage(version=version)
    found: list[Difference] = []
    for node in lineage_nodes(root):
        try:
            storage.artifact_verify(node.artifact)
        except (IntegrityError, OSError) as error:
            found.append(
                Difference(subject=_name_of(node), message=str(error), artifact=node.artifact)
            )
        if node.run is not None:
            found += _origin_compare(node, node.run)
        for known in node.versions:
            found += _version_compare(known)
    for check in settings.LINEAGE_CHECKS:
        found += import_string(check)(version=version)
    return found


def lineage_bytes(root: LineageNode) -> int:
    """How many bytes a verification of this lineage reads."""
    return sum(node.artifact.size_bytes for node in lineage_nodes(root))


def _name_of(node: LineageNode) -> str:
    if node.versions:
        return str(node.versions[0])
    return f"{node.role} ({node.artifact})" if node.role else str(node.artifact)


def _origin_compare(node: LineageNode, run: Run) -> list[Difference]:
    """The run's rows and the installed source files beside what made the artifact."""
    subject = f"run {run.uid[:8]} ({run.program})"
    origin = node.artifact.manifest.get("origin")
    if not isinstance(origin, dict):
        message = f"{_name_of(node)} does not say how it was made"
        return [Difference(subject=subject, message=message)]
    rows = {
        "program": run.program,
        **{f"config.{name}": value for name, value in run.config.items()},
        **{f"input {given.role}": given.artifact.sha256 for given in _inputs_of(run)},
    }
    made = {
        "program": origin.get("program"),
        **{f"config.{name}": value for name, value in origin.get("config", {}).items()},
        **{f"input {role}": sha256 for role, sha256 in origin.get("inputs", {}).items()},
    }
    messages = [
        f"{name} is {_shown(rows, name)}, but was {_shown(made, name)} when it ran"
        for name in sorted(rows.keys() | made.keys())
        if rows.get(name, _ABSENT) != made.get(name, _ABSENT)
    ]
    messages += [
        f"source file {module} is not the one that ran"
        for module, sha256 in origin.get("sources", {}).items()
        if source_sha256(module) != sha256
    ]
    return [Difference(subject=subject, message=message) for message in messages]


def _inputs_of(run: Run) -> Iterable[RunInput]:
    return RunInput.objects.filter(run=run).select_related("artifact")


def _version_compare(version: ModelVersion) -> list[Difference]:
    """The chat template that conversations are laid with, beside the one in the version's files."""
    try:
        template = (storage.artifact_folder(version.artifact) / "chat_template.jinja").read_text()
    except (OSError, ValueError):
        return []  # the template is not a file of its own; a missing file is found by its hash
    if template == version.chat_template:
        return []
    message = "its chat template is not the one of its files"
    return [Difference(subject=str(version), message=message)]


def _shown(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = json.dumps(values[name], ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
