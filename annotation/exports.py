"""Frozen datasets → the files that trainers read.

What a row is, annotation.layouts says. Two formats: JSON Lines and Parquet. Rows come in the order
of the snapshot, so the same dataset gives the same bytes. Memory does not grow with it.
"""

import json
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from django.http import StreamingHttpResponse
from django.utils.translation import gettext

from annotation.downloads import as_download
from annotation.layouts import LAYOUTS, Layout, layouts_of
from annotation.models import PreferenceDataset, Split
from annotation.services.snapshot_rows import SNAPSHOT_KINDS
from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.manifest import IntegrityError, folder_sync, path_sync
from modelhub.ml.records import json_canonical, records_read

FORMATS = ("jsonl", "parquet")
CONTENT_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
# The size categories of the Hugging Face Hub.
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)
_BLOCK_BYTES = 1 << 16

ALL = "all"  # in place of a split: the rows of every one


def dataset_export(*, dataset: PreferenceDataset, layout: str, format: str, out: Path) -> int:
    """Write a dataset as a folder that `datasets.load_dataset(folder)` opens; returns its rows.

    data/<split>.<format> for each split with rows, and a README.md that names them. The folder
    appears whole, by a rename, or not at all. Raises ApplicationError if it is there already, or if
    the dataset is not as it was frozen.
    """
    chosen = layout_of(layout, format, dataset.kind)
    out = out.absolute()
    if out.exists():
        raise ApplicationError(
            gettext("%(out)s is there already; name a folder that is not.") % {"out": out}
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (temporary / "data").mkdir(mode=0o700)
        counts = {}
        for split in Split.values:
            path = temporary / "data" / f"{split}.{format}"
            rows = _rows(dataset, chosen, split)
            counts[split] = _file_write(path, rows, chosen, format, dataset.kind)
            if not counts[split]:
                path.unlink()
        card = dataset_card(dataset=dataset, layout=chosen.name, format=format, counts=counts)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        folder_sync(temporary)
        temporary.rename(out)
        path_sync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sum(counts.values())


def dataset_export_stream(
    *, dataset: PreferenceDataset, layout: str, format: str, split: str | None = None
) -> Iterator[bytes]:
    """The bytes of a dataset as one file, of one split or, with its `split` column, of all.

    Bad arguments and damaged files are refused here, before the first byte is sent.
    """
    chosen = layout_of(layout, format, dataset.kind)
    if split is not None and split not in Split.values:
        raise ApplicationError(
            gettext("There is no split %(split)s.") % {"split": f"{split!r}"}, {"field": "split"}
        )
    rows = _rows(dataset, chosen, split)
    if format == "jsonl":
        return (_line(row) for row in rows)
    return _parquet_stream(rows, chosen, dataset.kind)


def dataset_export_name(
    *, dataset: PreferenceDataset, layout: str, format: str, split: str | None = None
) -> str:
    """A file name of the dataset's number, hash and rows: nothing a person wrote is in it."""
    name = layout_of(layout, format, dataset.kind).name
    parts = ["rondo", f"dataset-{dataset.number}", dataset.artifact.sha256[:12], name]
    return "-".join([*parts, split or ALL]) + f".{format}"


def splits_of(dataset: PreferenceDataset) -> list[str]:
    """What a file of a dataset may be limited to: its sides that have rows, and "all"."""
    return [*(name for name, rows in dataset.counts["used_by_split"].items() if rows), ALL]


def split_first(dataset: PreferenceDataset) -> str:
    """The rows that every page offers first: those to train on. All, where there are none.

    A file with held-out rows in it, which would be learnt from, has to be asked for.
    """
    return str(Split.TRAIN) if Split.TRAIN in splits_of(dataset) else ALL


def dataset_export_response(
    *, dataset: PreferenceDataset, layout: str, format: str, split: str | None = None
) -> StreamingHttpResponse:
    """The file as a download. Raises ApplicationError before anything is sent."""
    stream = dataset_export_stream(dataset=dataset, layout=layout, format=format, split=split)
    name = dataset_export_name(dataset=dataset, layout=layout, format=format, split=split)
    response = StreamingHttpResponse(stream, content_type=CONTENT_TYPES[format])
    as_download(response, name)
    return response


def layout_of(layout: str, format: str, kind: str) -> Layout:
    """The layout of this name, of a kind of task; without a name, the kind's first.

    Raises ApplicationError naming layout or format.
    """
    found = {one.name: one for one in layouts_of(kind)}
    layout = layout or next(iter(found))
    if layout not in found:
        raise ApplicationError(
            gettext("No layout %(layout)s of a %(kind)s; there are %(names)s.")
            % {"layout": f"{layout!r}", "kind": kind, "names": ", ".join(found)},
            {"field": "layout"},
        )
    if format not in FORMATS:
        names = ", ".join(FORMATS)
        raise ApplicationError(
            gettext("No format %(format)s; there are %(names)s.")
            % {"format": f"{format!r}", "names": names},
            {"field": "format"},
        )
    return found[layout]


def dataset_card(
    *, dataset: PreferenceDataset, layout: str, format: str, counts: dict[str, int]
) -> str:
    """The README.md of an exported folder: YAML that names the files, then words for a reader."""
    used = {split: rows for split, rows in counts.items() if rows}
    files = "\n".join(f"  - split: {split}\n    path: data/{split}.{format}" for split in used)
    rows = sum(used.values())
    size = next((name for most, name in SIZES if rows < most), "n>1M")
    # JSON texts are YAML texts: a project's name cannot end the header or add to it.
    title = json.dumps(f"{dataset.project.name}, dataset {dataset.number}")
    excluded = ", ".join(
        f"{reason} {count}" for reason, count in dataset.counts["excluded"].items() if count
    )
    return f"""\
---
pretty_name: {title}
tags: [preference, rlhf, trl, rondo]
size_categories: [{size}]
configs:
- config_name: default
  data_files:
{files}
---
# Judgements, frozen by Rondo

{LAYOUTS[layout].about} Rows by split: {", ".join(f"{s} {n}" for s, n in used.items())}.

- Artifact: sha256 `{dataset.artifact.sha256}`; frozen {dataset.created_at:%Y-%m-%d %H:%M} UTC.
- Query: `{json_canonical(dataset.query)}`
- {dataset.kind.capitalize()}s: {dataset.counts["total"]} submitted, \
{dataset.counts["used"]} used; left out: {excluded or "none"}.
- `source` says whose judgement a row is; `is_simulated` is true where a program labelled and not a
  person. `annotator` is a pseudonym; `weight` is how far it is relied on.
- A prompt's split is a function of its text: no prompt, and no rewrite of one, is in two splits.
"""


def _rows(
    dataset: PreferenceDataset, layout: Layout, split: str | None
) -> Iterator[dict[str, Any]]:
    """The rows of a split, or of all. Verifies the artifact before any row is asked for."""
    try:
        storage.artifact_verify(dataset.artifact)
    except IntegrityError as error:
        raise ApplicationError(
            gettext("%(dataset)s is not as it was frozen: %(error)s.")
            % {"dataset": dataset, "error": error}
        ) from error
    told = SNAPSHOT_KINDS[dataset.kind]
    path = storage.artifact_folder(dataset.artifact) / told.file
    return (
        row
        for record in records_read(path, told.record)
        if split is None or record.split == split
        for row in layout.rows(record)
    )


def _line(row: dict[str, Any]) -> bytes:
    # Columns in the layout's order, which readers show; every character as itself.
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _file_write(
    path: Path, rows: Iterable[dict[str, Any]], layout: Layout, format: str, kind: str
) -> int:
    with path.open("wb") as file:
        if format == "parquet":
            return sum(_parquet().row_groups_write(file, rows, layout=layout.name, kind=kind))
        count = 0
        for row in rows:
            file.write(_line(row))
            count += 1
        return count


def _parquet() -> ModuleType:
    """annotation.parquet, loaded where it is used: Arrow takes 40 MB that no other page needs."""
    return import_module("annotation.parquet")


def _parquet_stream(rows: Iterable[dict[str, Any]], layout: Layout, kind: str) -> Iterator[bytes]:
    """The bytes of a Parquet file, sent as each row group is written."""
    with tempfile.TemporaryFile() as file:
        sent = 0
        for _ in _parquet().row_groups_write(file, rows, layout=layout.name, kind=kind):
            sent += yield from _blocks_after(file, sent)
        yield from _blocks_after(file, sent)


def _blocks_after(file: IO[bytes], start: int) -> Generator[bytes, None, int]:
    """What a file holds from `start` on, in blocks; leaves it at its end. Returns its bytes."""
    file.flush()
    file.seek(start)
    sent = 0
    while block := file.read(_BLOCK_BYTES):
        sent += len(block)
        yield block
    return sent
