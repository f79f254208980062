"""RELIABILITY T03, T27: export, then import, is the identity; a bad file changes nothing."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotation import exports
from annotation.layouts import layouts_of
from annotation.models import PreferenceDataset, Project, Prompt, Submission
from annotation.services.assignments import assignment_next
from annotation.services.datasets import (
    preference_dataset_freeze,
    preference_dataset_import,
    preference_dataset_verify,
)
from annotation.services.prompts import prompts_import
from annotation.services.rankings import ranking_submit
from modelhub.errors import ApplicationError
from modelhub.models import Artifact
from tests.builders import make_member, make_project, make_ranking_task

pytestmark = pytest.mark.django_db
HOSTILE = [
    "a\u2028b\u2029c\u0085d",
    "one\r\ntwo\rthree\n",
    "👩‍👩‍👧‍👦 \U0001f3f4\U000e0067\U000e007f",
    "\u202eשלום\u202c مرحبا",
    "é",
    "e\u0301",
    "",
    '"\\" \\u0041 {"a": 1} \x07\x1f\x7f',
    "ﬁ Å Å \ufeff\u200b",
    " " * 3 + "\t",
]


@pytest.fixture
def frozen(project: Project) -> PreferenceDataset:
    """Rankings of hostile answers to hostile prompts, by both sorts of annotator."""
    asked = "".join(
        json.dumps({"prompt": f"{n} {text} {n}", "tags": ["ä", text[:20]]}) + "\n"
        for n, text in enumerate(HOSTILE)
    )
    prompts_import(project=project, lines=io.BytesIO(asked.encode()), name="p.jsonl")
    members = [make_member(project, "ann"), make_member(project, "bot", simulated=True)]
    for n, prompt in enumerate(Prompt.objects.order_by("pk")):
        texts = tuple(HOSTILE[n:] + HOSTILE[:n])[: 2 + n % 4]
        make_ranking_task(project, texts=texts, prompt=prompt)
        assignment = assignment_next(membership=members[n % 2])
        uids = [one.candidate.uid for one in assignment.task.task_candidates.all()]
        tiers = [uids[:1], uids[1:]]
        ranking_submit(
            assignment=assignment,
            tiers=tiers,
            unacceptable=uids[1:] if n % 3 else [],
            rationale=HOSTILE[n],
            active_s=n / 3,
        )
    return preference_dataset_freeze(project=project)


def exported(dataset: PreferenceDataset, format: str) -> bytes:
    return b"".join(
        exports.dataset_export_stream(dataset=dataset, layout="rankings", format=format)
    )


def imported(project: Project, data: bytes, name: str = "r.jsonl") -> PreferenceDataset:
    return preference_dataset_import(
        project=project, lines=io.BytesIO(data), name=name, created_by=None
    )


@pytest.mark.parametrize("format", exports.FORMATS)
def test_export_then_import_then_export_gives_the_same_bytes(
    frozen: PreferenceDataset, format: str
) -> None:
    elsewhere = make_project("Elsewhere")
    data = exported(frozen, format)
    dataset = imported(elsewhere, data, f"r.{format}")
    assert exported(dataset, format) == data
    for layout in [one.name for one in layouts_of(frozen.kind)]:
        for other in exports.FORMATS:
            asked = {"layout": layout, "format": other}
            assert b"".join(exports.dataset_export_stream(dataset=dataset, **asked)) == b"".join(
                exports.dataset_export_stream(dataset=frozen, **asked)
            )
    preference_dataset_verify(dataset=dataset)
    assert dataset.project == elsewhere and dataset.kind == frozen.kind
    assert dataset.query["imported"]["name"] == f"r.{format}"
    assert dataset.query["imported"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert dataset.counts["used"] == len(HOSTILE) == sum(dataset.counts["used_by_split"].values())
    assert not Submission.objects.filter(task__project=elsewhere).exists()


def test_the_same_rows_again_are_the_same_dataset_in_either_format(
    frozen: PreferenceDataset, project: Project
) -> None:
    first = imported(project, exported(frozen, "jsonl"))
    assert first != frozen and first.number == 2
    assert imported(project, exported(frozen, "jsonl"), "again.jsonl") == first
    assert imported(project, exported(frozen, "parquet"), "again.parquet") == first
    assert PreferenceDataset.objects.count() == 2


def other_side(row: dict[str, Any]) -> None:
    row["split"] = "held_out" if row["split"] == "train" else "train"


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown": (lambda row: row.update(mine=1), "mine"),
    "missing": (lambda row: row.pop("tiers"), "tiers"),
    "wrong type": (lambda row: row.update(is_simulated=1), "is_simulated"),
    "not ranked": (lambda row: row["tiers"].pop(), "tiers"),
    "ranked twice": (lambda row: row["tiers"].append(row["tiers"][0]), "tiers"),
    "empty tier": (lambda row: row["tiers"].append([]), "tiers"),
    "foreign": (lambda row: row.update(unacceptable=["nobody"]), "unacceptable"),
    "other split": (other_side, "split"),
    "no such split": (lambda row: row.update(split="test"), "split"),
    "role": (lambda row: row["messages"][0].update(role="tool"), "messages[0].role"),
    "last turn": (
        lambda row: row["messages"].append({"role": "assistant", "content": "x"}),
        "messages",
    ),
    "candidate": (lambda row: row["candidates"][0].pop("text"), "candidates[0].text"),
    "NUL": (lambda row: row["candidates"][1].update(text="\0"), "candidates[1].text"),
    "order": (lambda row: row["candidates"].reverse(), "candidates"),
    "id": (lambda row: row.update(id=""), "id"),
    "sorted": (lambda row: row.update(id="-"), "id"),
    "time": (lambda row: row.update(active_s=-1), "active_s"),
    "huge": (lambda row: row.update(active_s=10**400), "active_s"),
    "guideline": (lambda row: row.update(guideline=0), "guideline"),
    "shown": (lambda row: row["shown_order"].pop(), "shown_order"),
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_a_bad_row_is_named_by_file_line_and_field_and_changes_nothing(
    frozen: PreferenceDataset, case: str
) -> None:
    change, field = CHANGES[case]
    rows = [json.loads(line) for line in exported(frozen, "jsonl").split(b"\n")[:-1]]
    change(rows[2])
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elsewhere, artifacts = make_project("Elsewhere"), Artifact.objects.count()
    with pytest.raises(ApplicationError) as refused:
        imported(elsewhere, data, "bad.jsonl")
    assert refused.value.extra == {"file": "bad.jsonl", "line": 3, "field": field}
    assert "bad.jsonl, line 3" in refused.value.message
    assert not elsewhere.datasets.exists() and Artifact.objects.count() == artifacts


def test_one_id_means_one_text(frozen: PreferenceDataset, project: Project) -> None:
    first, second = (json.loads(x) for x in exported(frozen, "jsonl").split(b"\n")[:2])
    again = dict(first, id=second["id"], candidates=[dict(c) for c in first["candidates"]])
    again["candidates"][0]["text"] = "something else"
    with pytest.raises(ApplicationError, match="line 2, field candidates"):
        imported(project, (json.dumps(first) + "\n" + json.dumps(again)).encode())


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"{", b"[1]\n", b"\xff\n", b"PAR1 and then nothing", b'{"id": NaN}']
)
def test_what_is_no_file_of_rankings_is_refused(project: Project, data: bytes) -> None:
    with pytest.raises(ApplicationError, match=r"r\.jsonl"):
        imported(project, data)
    assert not project.datasets.exists()


def test_parquet_of_another_layout_is_refused_by_its_columns(
    frozen: PreferenceDataset, project: Project
) -> None:
    stream = exports.dataset_export_stream(dataset=frozen, layout="trl", format="parquet")
    with pytest.raises(ApplicationError) as refused:
        imported(project, b"".join(stream), "pairs.parquet")
    assert refused.value.extra == {"file": "pairs.parquet", "line": 1, "field": "id"}


def test_the_command_imports_a_file_and_says_what_it_refuses(
    frozen: PreferenceDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, path = make_project("Elsewhere"), tmp_path / "r.parquet"
    path.write_bytes(exported(frozen, "parquet"))
    call_command("import_rankings", elsewhere.uid, str(path))
    assert f"{len(HOSTILE)} rankings" in capsys.readouterr().out
    path.write_bytes(exported(frozen, "jsonl") + b"{}\n")
    with pytest.raises(CommandError, match=rf"r\.parquet, line {len(HOSTILE) + 1}, field id"):
        call_command("import_rankings", elsewhere.uid, str(path))
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_rankings", elsewhere.uid, str(tmp_path / "none"))
