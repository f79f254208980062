"""Two to four versions side by side: what they are, how they were made, what was measured."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext

from modelhub import storage
from modelhub.json_text import count_text, json_rows
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Artifact, ModelVersion
from modelhub.selectors.comparison_rows import (
    Cell,
    ComparedRow,
    figure_cell,
    figure_label,
    row_ranked,
)
from modelhub.selectors.evaluations_compare import (
    Duel,
    duels_of,
    evaluation_rows,
    evaluations_of,
)
from modelhub.selectors.naming import NAMED_ARTIFACT, artifact_title
from modelhub.selectors.runs import run_settings
from modelhub.selectors.versions import version_is_adapter
from modelhub.version_figures import (
    Figure,
    figure_is_by_tokens,
    figure_is_ranked,
    figure_more_is_better,
    figures_read,
    parent_differences,
)

MOST_COMPARED = 4
MOST_ASKED = 100  # uids that are looked for
_WEIGHTS = (Artifact.Kind.MODEL, Artifact.Kind.ADAPTER)
# Files of which the first that is there says which token is which.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_CONFIG_BYTES = 1 << 20  # more is no config.json
# Settings that say what a run kept unseen, beside validation_… and held_out_…: where a set is cut
# into blocks, and what is too long to be in it.
_CUT_BY = ("block_tokens", "max_tokens")
# Those whose losses are of hidden tokens alone.
_HIDING = ("BertForMaskedLM", "T5ForConditionalGeneration")


@dataclass(frozen=True, kw_only=True)
class Ancestry:
    """The nearest version that all come from, and the way from it to each, both ends included.

    Without one in common a way begins at the first version that is known.
    """

    common: ModelVersion | None
    ways: Sequence[Sequence[ModelVersion]]


@dataclass(frozen=True, kw_only=True)
class VersionComparison:
    """Versions side by side."""

    versions: Sequence[ModelVersion]
    facts: Sequence[ComparedRow] = ()
    origins: Sequence[ComparedRow] = ()
    settings: Sequence[ComparedRow] = ()  # of the runs that made them, where these differ
    settings_of_one: Sequence[ComparedRow] = ()  # that only one of the programs has
    duels: Sequence[Duel] = ()
    figures: Sequence[ComparedRow] = ()  # of which one is better than another
    figures_besides: Sequence[ComparedRow] = ()
    ancestry: Ancestry = field(default_factory=lambda: Ancestry(common=None, ways=()))


def versions_get(*, uids: Sequence[str]) -> list[ModelVersion]:
    """The versions of these uids in their order, unknown ones and repeats left out; the first four
    that there are.

    A constant number of queries.
    """
    inputs = [f"run__inputs__artifact__{one}" for one in NAMED_ARTIFACT]
    found = (
        ModelVersion.objects.select_related("model", "artifact", "run", "parent__model")
        .select_related("parent__artifact")
        .prefetch_related("aliases", "run__inputs__artifact", *inputs)
        .filter(uid__in=uids_known(uids=uids)[:MOST_COMPARED])
    )
    by_uid = {version.uid: version for version in found}
    return [by_uid[uid] for uid in dict.fromkeys(uids) if uid in by_uid]


def uids_known(*, uids: Sequence[str]) -> list[str]:
    """Those of the first hundred uids that a version has, each once, in their order. One query."""
    asked = list(dict.fromkeys(uids))[:MOST_ASKED]
    known = set(ModelVersion.objects.filter(uid__in=asked).values_list("uid", flat=True))
    return [uid for uid in asked if uid in known]


def versions_compare(*, versions: Sequence[ModelVersion]) -> VersionComparison:
    """Hold versions, as `versions_get` gives them, against each other.

    A constant number of queries, and one for each generation above them; reads their manifests and
    each one's config.json.
    """
    evaluations = evaluations_of(versions)
    figures = [figures_read(version.facts) for version in versions]
    names = sorted(
        dict.fromkeys(name for own in figures for name in own),
        key=lambda name: not figure_is_ranked(name),
    )
    tokenizers = [_tokenizer_sha256(version) for version in versions]
    counted = [
        (tokenizer, version.architecture if version.architecture in _HIDING else "")
        for tokenizer, version in zip(tokenizers, versions, strict=True)
    ]
    grounds = [_ground(version) for version in versions]
    rows = {
        name: _figure_row(name, [own.get(name) for own in figures], grounds, counted)
        for name in names
    }
    alone: list[ComparedRow] = []
    shared: list[ComparedRow] = []
    for row in _settings_rows(versions):
        (alone if sum(cell.text != "–" for cell in row.cells) < 2 else shared).append(row)
    return VersionComparison(
        versions=versions,
        facts=_facts_rows(versions, tokenizers),
        origins=_origin_rows(versions),
        settings=shared,
        settings_of_one=alone,
        duels=duels_of(versions, evaluations),
        figures=[
            *evaluation_rows(versions, evaluations),
            *(row for name, row in rows.items() if figure_is_ranked(name)),
            *_difference_rows(versions),
        ],
        figures_besides=[row for name, row in rows.items() if not figure_is_ranked(name)],
        ancestry=_ancestry(versions),
    )


# ── what they are ────────────────────────────────────────────────────────────────────────────────


def _facts_rows(versions: Sequence[ModelVersion], tokenizers: Sequence[str]) -> list[ComparedRow]:
    def row(name: str, cells: Iterable[Cell]) -> ComparedRow:
        return ComparedRow(name=name, cells=list(cells))

    def hashed(sha256: str) -> Cell:
        return Cell(text=sha256[:12], about=sha256) if sha256 else Cell()

    templates = [one.chat_template for one in versions]
    rows = [
        row(gettext("Role"), (Cell(text=str(one.get_role_display())) for one in versions)),
        row(gettext("Architecture"), (Cell(text=one.architecture) for one in versions)),
        row(
            gettext("Weights"),
            (
                Cell(text=count_text(one.parameters), about=f"{one.parameters:,}")
                for one in versions
            ),
        ),
        row(gettext("Type"), (Cell(text=_type_words(one)) for one in versions)),
        row(gettext("Context"), (Cell(text=f"{one.context_tokens:,}") for one in versions)),
        row(gettext("Vocabulary"), (Cell(text=_vocabulary(one)) for one in versions)),
        row(gettext("Tokenizer"), map(hashed, tokenizers)),
        row(
            gettext("Chat template"),
            (
                hashed(hashlib.sha256(one.encode()).hexdigest())
                if one
                else Cell(text=gettext("none"))
                for one in templates
            ),
        ),
        row(
            gettext("Size"),
            (
                Cell(
                    text=filesizeformat(one.artifact.size_bytes),
                    about=f"{one.artifact.size_bytes:,}",
                )
                for one in versions
            ),
        ),
        row(gettext("Licence"), (Cell(text=one.facts.get("license") or "–") for one in versions)),
        row(gettext("Artifact"), (hashed(one.artifact.sha256) for one in versions)),
    ]
    return [one for one in rows if any(cell.text != "–" for cell in one.cells)]


def _type_words(version: ModelVersion) -> str:
    stored = version.facts.get("weights_from")
    if not stored:
        return version.dtype
    return gettext("%(dtype)s, from %(stored)s") % {"dtype": version.dtype, "stored": stored}


def _tokenizer_sha256(version: ModelVersion) -> str:
    """The hash of the file that says which token is which; an adapter has its base's."""
    for one in (version, version.parent if version_is_adapter(version) else None):
        files = one.artifact.manifest.get("files", {}) if one is not None else {}
        for name in _TOKENIZER_FILES:
            if name in files:
                return str(files[name]["sha256"])
    return ""


def _vocabulary(version: ModelVersion) -> str:
    """The rows of its embedding, as config.json has them; an adapter's are its base's."""
    whole = version.parent if version_is_adapter(version) and version.parent else version
    try:
        path = storage.artifact_folder(whole.artifact) / "config.json"
        if path.stat().st_size > _CONFIG_BYTES:
            return "–"
        size = json.loads(path.read_bytes()).get("vocab_size")
    except (OSError, ValueError, AttributeError, IntegrityError):
        return "–"
    return f"{size:,}" if isinstance(size, int) else "–"


# ── how they were made ───────────────────────────────────────────────────────────────────────────


def _origin_rows(versions: Sequence[ModelVersion]) -> list[ComparedRow]:
    return [
        ComparedRow(
            name=gettext("Made from"),
            cells=[
                Cell(text=str(one.parent), version=one.parent) if one.parent else Cell()
                for one in versions
            ],
        ),
        ComparedRow(
            name=gettext("Made by"),
            cells=[
                Cell(text=str(one.run), about=one.run.uid, run=one.run) if one.run else Cell()
                for one in versions
            ],
        ),
        ComparedRow(
            name=gettext("Learnt from"),
            cells=[
                Cell(lines=lines) if (lines := _data_lines(one)) else Cell() for one in versions
            ],
        ),
    ]


def _data_lines(version: ModelVersion) -> list[str]:
    """What its run read beside weights, by role; two of one title are told apart by their hash."""
    return [
        f"{given.role}: {artifact_title(given.artifact)} ({given.artifact.sha256[:8]})"
        for given in _data_of(version)
    ]


def _data_of(version: ModelVersion) -> list[Any]:
    given = version.run.inputs.all() if version.run is not None else ()
    read = [one for one in given if one.artifact.kind not in _WEIGHTS]
    return sorted(read, key=lambda one: str(one.role))


def _settings_rows(versions: Sequence[ModelVersion]) -> list[ComparedRow]:
    """The settings of their runs that are not the same in all, what they read left out: weights
    and data have rows of their own."""
    columns = []
    for version in versions:
        told = dict(json_rows(run_settings(version.run))) if version.run is not None else {}
        columns.append({name: text for name, text in told.items() if not _is_read(name)})
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [
        ComparedRow(name=name, cells=[Cell(text=column.get(name, "–")) for column in columns])
        for name in names
    ]
    return [row for row in rows if row.differs]


def _is_read(name: str) -> bool:
    return name.startswith("reads.")


def _ancestry(versions: Sequence[ModelVersion]) -> Ancestry:
    """Parents upwards, a query a generation."""
    known = {one.pk: one for one in versions}
    missing = {one.parent_id for one in versions if one.parent_id} - known.keys()
    while missing:
        parents = ModelVersion.objects.filter(pk__in=missing).select_related("model", "run")
        known |= {one.pk: one for one in parents}
        missing = {one.parent_id for one in known.values() if one.parent_id} - known.keys()
    chains = [_chain(version, known) for version in versions]
    others = [{one.pk for one in chain} for chain in chains[1:]]
    first = chains[0] if chains else []
    common = next((one for one in first if all(one.pk in other for other in others)), None)
    ways = []
    for chain in chains:
        ends = [one.pk for one in chain].index(common.pk) + 1 if common else len(chain)
        ways.append(chain[:ends][::-1])
    return Ancestry(common=common, ways=ways)


def _chain(version: ModelVersion, known: Mapping[int, ModelVersion]) -> list[ModelVersion]:
    """The version, what it was made from, and so on to the first that is known."""
    chain = [version]
    while chain[-1].parent_id and known[chain[-1].parent_id] not in chain:
        chain.append(known[chain[-1].parent_id])
    return chain


# ── what was measured ────────────────────────────────────────────────────────────────────────────


def _ground(version: ModelVersion) -> tuple[Any, ...]:
    """What a run's figures stand on: the data it read, and how it kept some of that unseen."""
    if version.run is None:
        return ()
    data = sorted(given.artifact.sha256 for given in _data_of(version))
    kept = sorted(
        (name, json.dumps(value))
        for name, value in version.run.config.items()
        if name.startswith(("validation", "held_out")) or name in _CUT_BY
    )
    return tuple(data), tuple(kept)


def _figure_row(
    name: str,
    figures: Sequence[Figure | None],
    grounds: Sequence[tuple[Any, ...]],
    counted: Sequence[tuple[str, str]],
) -> ComparedRow:
    """A figure of all versions; the best is marked where they stand on the same ground.

    counted: which tokens a loss of each is of.
    """
    label = figure_label(name)
    more_is_better = figure_more_is_better(name)
    if more_is_better is None:
        return ComparedRow(name=label, cells=[figure_cell(figure) for figure in figures])
    measured = [place for place, figure in enumerate(figures) if figure is not None]
    note = ""
    if len(measured) > 1:
        if len({grounds[place] for place in measured}) > 1 or not grounds[measured[0]]:
            note = gettext("of different data")
        elif figure_is_by_tokens(name) and len({counted[place] for place in measured}) > 1:
            note = gettext("in different tokens")
    return row_ranked(label, figures, more_is_better=more_is_better, note=note)


def _difference_rows(versions: Sequence[ModelVersion]) -> list[ComparedRow]:
    """What each quantised version lost beside the version it was made from."""
    lost = [parent_differences(version.facts) for version in versions]
    names = dict.fromkeys(name for own in lost for name in own)
    return [
        ComparedRow(
            name=gettext("%(figure)s, minus its parent’s") % {"figure": name},
            cells=[figure_cell(own.get(name)) for own in lost],
        )
        for name in names
    ]
