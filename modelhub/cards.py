"""Model cards: what was measured of a version, written for those who will use it.

README.md in the layout that model hubs read: YAML metadata between two lines of dashes, then
Markdown. A JSON value is a YAML value, so the metadata is written as JSON, a line for each name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.json_text import json_rows
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.comparison_rows import figure_text
from modelhub.selectors.lineage import LineageNode, lineage_nodes
from modelhub.selectors.versions import version_is_adapter
from modelhub.version_figures import figures_read

# What a version learnt from, among all that its lineage names.
_DATA = (
    Artifact.Kind.RANKINGS,
    Artifact.Kind.RATINGS,
    Artifact.Kind.DEMONSTRATIONS,
    Artifact.Kind.CORPUS,
    Artifact.Kind.TOKENS,
)
_TASKS = {"reward": "text-classification"}
LICENSE_FACT = "license"
STORED_FACT = "weights_from"  # the type of a quantised file that the weights were imported from


@dataclass(frozen=True, kw_only=True)
class Card:
    """A version's card, its parts as the page and README.md show them."""

    version: ModelVersion
    license: str
    facts: list[tuple[str, str]]  # what is known of the weights
    measured: list[tuple[str, str]]  # figures of the run that made it
    evaluations: list[tuple[Run, list[tuple[str, str]]]]  # figures of runs that tried it
    data: list[tuple[str, Artifact]]  # (role, artifact) it learnt from, all the way up


def card_read(
    *, version: ModelVersion, lineage: LineageNode, evaluations: Sequence[Run] = ()
) -> Card:
    """The card of a version. Asks no database."""
    stored = str(version.facts.get(STORED_FACT, ""))
    own = (LICENSE_FACT, STORED_FACT)
    known = {name: value for name, value in version.facts.items() if name not in own}
    return Card(
        version=version,
        license=str(version.facts.get(LICENSE_FACT, "")),
        facts=[
            ("architecture", version.architecture),
            ("parameters", f"{version.parameters:,}"),
            ("dtype", version.dtype),
            *([("weights from", stored_words(stored))] if stored else []),
            ("context", f"{version.context_tokens:,} tokens"),
            ("size", f"{version.artifact.size_bytes:,} bytes"),
        ],
        measured=list(json_rows(known)) if known else [],
        evaluations=[
            (
                run,
                [(name, figure_text(one)) for name, one in figures_read(run.result or {}).items()],
            )
            for run in evaluations
        ],
        data=[
            (node.role, node.artifact)
            for node in lineage_nodes(lineage)
            if node.artifact.kind in _DATA
        ],
    )


def stored_words(stored: str) -> str:
    """A type of quantised weights with its bits: "Q4_1" → "Q4_1, 4 bits a weight"."""
    bits = re.search(r"\d+", stored)
    return f"{stored}, {bits[0]} bits a weight" if bits else stored


def card_markdown(card: Card) -> str:
    """README.md: metadata, the words people wrote, then what was measured and how it was made."""
    version, lines = card.version, ["---"]
    for name, value in _metadata(card).items():
        lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    lines += ["---", "", f"# {version}", ""]
    if version.card.strip():
        lines += [version.card.strip(), ""]
    lines += ["## Facts", "", *_table(card.facts), ""]
    if card.measured:
        lines += ["## Measured", "", *_table(card.measured), ""]
    for run, figures in card.evaluations:
        if figures:
            lines += [f"## Tried by {run.program} {run.uid[:8]}", "", *_table(figures), ""]
    lines += ["## How it was made", ""]
    if version.parent is not None:
        lines.append(f"- from {version.parent}")
    if version.run is not None:
        lines.append(f"- by the run {version.run.program} {version.run.uid}")
    lines += [
        f"- {artifact.kind} (`{role}`): sha256 of its manifest `{artifact.sha256}`"
        for role, artifact in card.data
    ]
    lines += [f"- these files: sha256 of their manifest `{version.artifact.sha256}`", ""]
    files = version.artifact.manifest.get("files", {})
    if files:
        lines += ["| file | sha256 | bytes |", "| --- | --- | --- |"]
        lines += [
            f"| {_cell(name)} | `{described['sha256']}` | {described['bytes']:,} |"
            for name, described in sorted(files.items())
        ]
    return "\n".join(lines).rstrip() + "\n"


def _metadata(card: Card) -> dict[str, Any]:
    version = card.version
    found: dict[str, Any] = {
        "library_name": "peft" if version_is_adapter(version) else "transformers",
        "pipeline_tag": _TASKS.get(version.role, "text-generation"),
        "tags": ["rondo", version.role],
    }
    if card.license:
        found["license"] = card.license
    if version.parent is not None:
        found["base_model"] = str(version.parent)
    if card.data:
        found["datasets"] = list(dict.fromkeys(artifact.sha256[:12] for _, artifact in card.data))
    return found


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    written = [f"| {_cell(name)} | {_cell(text)} |" for name, text in rows]
    return ["| | |", "| --- | --- |", *written]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
