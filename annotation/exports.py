"""Frozen datasets → the files that trainers read.

Two layouts: `trl`, one row for each untied pair (prompt, chosen, rejected, as TRL's preference
trainers take them, conversational or as plain text, with where it came from in further columns);
and `rankings`, the rows as they were frozen. Two formats: JSON Lines and Parquet. Rows come in the
order of the snapshot, so the same dataset gives the same bytes. Memory does not grow with it.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from django.http import StreamingHttpResponse

from annotation.models import PreferenceDataset, Split
from annotation.pairs import ranking_pairs
from annotation.records import RANKINGS_NAME, RankingRecord
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


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a ranking becomes rows."""

    name: str
    about: str
    rows: Callable[[RankingRecord], Iterator[dict[str, Any]]]


def _pairs_conversational(record: RankingRecord) -> Iterator[dict[str, Any]]:
    for row, chosen, rejected in _pairs(record):
        yield {
            "prompt": record.messages,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            **row,
        }


def _pairs_text(record: RankingRecord) -> Iterator[dict[str, Any]]:
    prompt = transcript(record.messages)
    for row, chosen, rejected in _pairs(record):
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected, **row}


def _pairs(record: RankingRecord) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The untied pairs of a ranking, with their texts."""
    candidates = {one["id"]: one for one in record.candidates}
    pairs = list(ranking_pairs(record.tiers, unacceptable=record.unacceptable))
    for pair in pairs:
        chosen, rejected = candidates[pair.better], candidates[pair.worse]
        row = {
            "ranking_id": record.id,
            "prompt_id": record.prompt_id,
            "chosen_id": pair.better,
            "rejected_id": pair.worse,
            "chosen_model_version": chosen["model_version"],
            "rejected_model_version": rejected["model_version"],
            "tiers_apart": pair.tiers_apart,
            "both_unacceptable": pair.both_unacceptable,
            "pairs_of_ranking": len(pairs),
            "split": record.split,
            "tags": record.tags,
            "batch": record.batch,
            "annotator": record.annotator,
            "is_simulated": record.is_simulated,
        }
        yield row, chosen["text"], rejected["text"]


def _rankings(record: RankingRecord) -> Iterator[dict[str, Any]]:
    yield dataclasses.asdict(record)


def transcript(messages: list[dict[str, str]]) -> str:
    """A conversation as one text, for trainers without a chat template.

    A lone user turn is its own text; anything else is laid as Anthropic's HH-RLHF lays dialogues,
    "\\n\\nHuman: …\\n\\nAssistant:", with a system message before it.
    """
    if [one["role"] for one in messages] == ["user"]:
        return messages[0]["content"]
    names = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    turns = [names[one["role"]] + one["content"] for one in messages]
    return "".join(turns) + "\n\nAssistant:"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            name="trl",
            about="TRL preference, conversational: one row for each untied pair of answers.",
            rows=_pairs_conversational,
        ),
        Layout(
            name="trl-text",
            about="TRL preference, standard: one row for each untied pair of answers, as text.",
            rows=_pairs_text,
        ),
        Layout(
            name="rankings",
            about="Rankings as they were frozen: all answers to a prompt, in tiers, best first.",
            rows=_rankings,
        ),
    )
}


def dataset_export(*, dataset: PreferenceDataset, layout: str, format: str, out: Path) -> int:
    """Write a dataset as a folder that `datasets.load_dataset(folder)` opens; returns its rows.

    data/<split>.<format> for each split with rows, and a README.md that names them. The folder
    appears whole, by a rename, or not at all. Raises ApplicationError if it is there already, or if
    the dataset is not as it was frozen.
    """
    chosen = layout_of(layout, format)
    out = out.absolute()
    if out.exists():
        raise ApplicationError(f"{out} is there already; name a folder that is not.")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (temporary / "data").mkdir(mode=0o700)
        counts = {}
        for split in Split.values:
            path = temporary / "data" / f"{split}.{format}"
            counts[split] = _file_write(path, _rows(dataset, chosen, split), chosen, format)
            if not counts[split]:
                path.unlink()
        card = dataset_card(dataset=dataset, layout=layout, format=format, counts=counts)
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
    chosen = layout_of(layout, format)
    if split is not None and split not in Split.values:
        raise ApplicationError(f"There is no split {split!r}.", {"field": "split"})
    rows = _rows(dataset, chosen, split)
    if format == "jsonl":
        return (_line(row) for row in rows)
    return _parquet_stream(rows, chosen)


def dataset_export_name(
    *, dataset: PreferenceDataset, layout: str, format: str, split: str | None = None
) -> str:
    """A file name made of the dataset's number and hash: nothing a person wrote is in it."""
    parts = ["rondo", f"dataset-{dataset.number}", dataset.artifact.sha256[:12], layout, split]
    return "-".join(part for part in parts if part) + f".{format}"


def dataset_export_response(
    *, dataset: PreferenceDataset, layout: str, format: str, split: str | None = None
) -> StreamingHttpResponse:
    """The file as a download. Raises ApplicationError before anything is sent."""
    stream = dataset_export_stream(dataset=dataset, layout=layout, format=format, split=split)
    name = dataset_export_name(dataset=dataset, layout=layout, format=format, split=split)
    response = StreamingHttpResponse(stream, content_type=CONTENT_TYPES[format])
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def layout_of(layout: str, format: str) -> Layout:
    """The layout of this name. Raises ApplicationError naming layout or format."""
    if layout not in LAYOUTS:
        names = ", ".join(LAYOUTS)
        raise ApplicationError(f"No layout {layout!r}; there are {names}.", {"field": "layout"})
    if format not in FORMATS:
        names = ", ".join(FORMATS)
        raise ApplicationError(f"No format {format!r}; there are {names}.", {"field": "format"})
    return LAYOUTS[layout]


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
# Preferences, frozen by Rondo

{LAYOUTS[layout].about} Rows by split: {", ".join(f"{s} {n}" for s, n in used.items())}.

- Artifact: sha256 `{dataset.artifact.sha256}`; frozen {dataset.created_at:%Y-%m-%d %H:%M} UTC.
- Query: `{json_canonical(dataset.query)}`
- Rankings: {dataset.counts["total"]} submitted, {dataset.counts["used"]} used; left out: \
{excluded or "none"}.
- `is_simulated` is true where a program labelled and not a person. `annotator` is a pseudonym.
- A prompt's split is a function of its text: no prompt, and no rewrite of one, is in two splits.
"""


def _rows(
    dataset: PreferenceDataset, layout: Layout, split: str | None
) -> Iterator[dict[str, Any]]:
    """The rows of a split, or of all. Verifies the artifact before any row is asked for."""
    try:
        storage.artifact_verify(dataset.artifact)
    except IntegrityError as error:
        raise ApplicationError(f"{dataset} is not as it was frozen: {error}.") from error
    path = storage.artifact_folder(dataset.artifact) / RANKINGS_NAME
    return (
        row
        for record in records_read(path, RankingRecord)
        if split is None or record.split == split
        for row in layout.rows(record)
    )


def _line(row: dict[str, Any]) -> bytes:
    # Columns in the layout's order, which readers show; every character as itself.
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _file_write(path: Path, rows: Iterable[dict[str, Any]], layout: Layout, format: str) -> int:
    with path.open("wb") as file:
        if format == "parquet":
            return sum(_parquet().row_groups_write(file, rows, layout=layout.name))
        count = 0
        for row in rows:
            file.write(_line(row))
            count += 1
        return count


def _parquet() -> ModuleType:
    """annotation.parquet, loaded where it is used: Arrow takes 40 MB that no other page needs."""
    return import_module("annotation.parquet")


def _parquet_stream(rows: Iterable[dict[str, Any]], layout: Layout) -> Iterator[bytes]:
    """The bytes of a Parquet file, sent as each row group is written."""
    with tempfile.TemporaryFile() as file:
        sent = 0
        for _ in _parquet().row_groups_write(file, rows, layout=layout.name):
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
