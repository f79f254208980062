"""What trainers are given: the pairs and rows of a frozen dataset, in files that are whole."""

import io
import itertools
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command

from annotation import exports
from annotation.layouts import layouts_of, transcript
from annotation.models import Candidate, Membership, PreferenceDataset, Project, Prompt, Submission
from annotation.parquet import NEWER
from annotation.services.assignments import assignment_next
from annotation.services.datasets import RANKINGS_NAME, preference_dataset_freeze
from annotation.services.rankings import ranking_submit
from modelhub.errors import ApplicationError
from modelhub.storage import artifact_folder
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_prompt, make_ranking_task

pytestmark = pytest.mark.django_db
STRANGE = 'a\u2028b\u0085c \r\n "q" \\ 👩‍👧 e\u0301'


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def dataset(project: Project, ann: Membership) -> PreferenceDataset:
    make_answered_batch(project, prompts=6)
    for prompt, split in zip(Prompt.objects.all(), itertools.cycle(["train", "held_out", "train"])):
        prompt.split = split
        prompt.save()
    rank_all(ann)
    return preference_dataset_freeze(project=project)


def streamed(dataset: PreferenceDataset, layout: str, format: str, split: str | None = None):
    stream = exports.dataset_export_stream(
        dataset=dataset, layout=layout, format=format, split=split
    )
    data = b"".join(stream)
    if format == "parquet":
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        if layout == "rankings":  # where a row says nothing, Arrow has null
            rows = [{k: v for k, v in r.items() if v is not None or k not in NEWER} for r in rows]
        return rows
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def rank(task, membership: Membership, tiers: list[list[int]], unacceptable: list[int]):
    uids = [one.candidate.uid for one in task.task_candidates.all()]
    return ranking_submit(
        assignment=assignment_next(membership=membership),
        tiers=[[uids[n] for n in tier] for tier in tiers],
        unacceptable=[uids[n] for n in unacceptable],
    )


def test_a_ranking_becomes_trl_pairs_as_worked_by_hand(project: Project, ann: Membership) -> None:
    task = make_ranking_task(project, texts=(STRANGE, "b", "c", "d"), prompt=make_prompt(project))
    submission = rank(task, ann, [[0], [1], [2, 3]], [2, 3])
    dataset = preference_dataset_freeze(project=project)
    rows = streamed(dataset, "trl", "jsonl")
    told = [
        (row["chosen"][0]["content"], row["rejected"][0]["content"], row["tiers_apart"])
        for row in rows
    ]
    assert sorted(told) == sorted(
        [(STRANGE, "b", 1), (STRANGE, "c", 2), (STRANGE, "d", 2), ("b", "c", 1), ("b", "d", 1)]
    )
    row = rows[0]
    uid_of = dict(Candidate.objects.values_list("text", "uid"))
    assert row == {
        "prompt": task.prompt.messages,
        "chosen": [{"role": "assistant", "content": STRANGE}],
        "rejected": [{"role": "assistant", "content": "b"}],
        "ranking_id": submission.uid,
        "prompt_id": task.prompt.uid,
        "chosen_id": uid_of[STRANGE],
        "rejected_id": uid_of["b"],
        "chosen_model_version": task.batch.version.uid,
        "rejected_model_version": task.batch.version.uid,
        "tiers_apart": 1,
        "both_unacceptable": False,
        "pairs_of_ranking": 5,
        "split": "train",
        "tags": [],
        "batch": task.batch.uid,
        "annotator": ann.uid,
        "is_simulated": False,
        "source": "person",
        "weight": 1.0,
    }


def test_a_pair_of_two_unacceptable_answers_is_kept_and_marked(
    project: Project, ann: Membership
) -> None:
    rank(make_ranking_task(project, texts=("a", "b", "c")), ann, [[0], [1], [2]], [1, 2])
    dataset = preference_dataset_freeze(project=project)
    for format in exports.FORMATS:
        rows = streamed(dataset, "trl-text", format)
        assert [(r["chosen"], r["rejected"], r["both_unacceptable"]) for r in rows] == [
            ("a", "b", False),
            ("a", "c", False),
            ("b", "c", True),
        ]


def test_plain_text_of_a_lone_question_is_the_question_and_of_a_dialogue_a_transcript() -> None:
    assert transcript([{"role": "user", "content": "Why?"}]) == "Why?"
    dialogue = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Why?"},
    ]
    assert transcript(dialogue) == (
        "Be kind.\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Why?\n\nAssistant:"
    )


@pytest.mark.parametrize("layout", [one.name for one in layouts_of("ranking")])
def test_both_formats_say_the_same(dataset: PreferenceDataset, layout: str) -> None:
    rows = streamed(dataset, layout, "jsonl")
    assert rows
    assert streamed(dataset, layout, "parquet") == rows


def test_the_rankings_layout_is_the_snapshot_itself(dataset: PreferenceDataset) -> None:
    path = artifact_folder(dataset.artifact) / RANKINGS_NAME
    frozen = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    assert streamed(dataset, "rankings", "jsonl") == frozen
    assert streamed(dataset, "rankings", "parquet") == frozen


def test_the_splits_part_the_rows(dataset: PreferenceDataset) -> None:
    everything = streamed(dataset, "rankings", "jsonl")
    parts = [
        streamed(dataset, "rankings", "jsonl", split)
        for split in ("train", "validation", "held_out")
    ]
    assert [len(part) for part in parts] == [4, 0, 2]
    assert sorted(row["id"] for part in parts for row in part) == [row["id"] for row in everything]
    assert all(row["split"] == "held_out" for row in parts[2])


def test_a_stream_of_no_rows_is_still_a_parquet_file(dataset: PreferenceDataset) -> None:
    assert streamed(dataset, "trl", "parquet", "validation") == []


@pytest.mark.parametrize(
    ("change", "field"),
    [({"layout": "csv"}, "layout"), ({"format": "csv"}, "format"), ({"split": "test"}, "split")],
)
def test_an_export_that_there_is_not_is_refused_before_a_byte(
    dataset: PreferenceDataset, change: dict, field: str
) -> None:
    asked = {"dataset": dataset, "layout": "trl", "format": "jsonl", "split": None}
    with pytest.raises(ApplicationError) as refused:
        exports.dataset_export_stream(**asked | change)
    assert refused.value.extra == {"field": field}


def test_damaged_files_are_refused_before_a_byte(dataset: PreferenceDataset) -> None:
    path = artifact_folder(dataset.artifact) / RANKINGS_NAME
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"active_s":1.25', b'"active_s":1.26', 1))
    with pytest.raises(ApplicationError, match="not as it was frozen"):
        exports.dataset_export_stream(dataset=dataset, layout="trl", format="jsonl")
    path.write_bytes(content)


def test_a_download_is_named_by_number_and_hash_alone(dataset: PreferenceDataset) -> None:
    name = exports.dataset_export_name(
        dataset=dataset, layout="trl", format="jsonl", split="held_out"
    )
    assert name == f"rondo-dataset-1-{dataset.artifact.sha256[:12]}-trl-held_out.jsonl"


@pytest.mark.parametrize("format", exports.FORMATS)
def test_the_same_dataset_gives_the_same_bytes(dataset: PreferenceDataset, format: str) -> None:
    streams = [
        b"".join(exports.dataset_export_stream(dataset=dataset, layout="trl", format=format))
        for _ in range(2)
    ]
    assert streams[0] == streams[1]


def test_a_large_dataset_is_written_in_row_groups(
    dataset: PreferenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annotation import parquet

    whole = streamed(dataset, "trl", "parquet")
    monkeypatch.setattr(parquet, "ROWS_A_GROUP", 4)
    data = b"".join(exports.dataset_export_stream(dataset=dataset, layout="trl", format="parquet"))
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == -(-len(whole) // 4)
    assert file.read().to_pylist() == whole


def test_the_command_writes_a_folder_with_a_card(
    dataset: PreferenceDataset, project: Project, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "deep" / "export"
    call_command("export_preferences", project.uid, "--dataset", "1", "--out", str(out))
    train = [json.loads(line) for line in (out / "data" / "train.jsonl").read_text().splitlines()]
    held_out = (out / "data" / "held_out.jsonl").read_text().splitlines()
    assert len(train) + len(held_out) == len(streamed(dataset, "trl", "jsonl"))
    assert not (out / "data" / "validation.jsonl").exists()
    card = (out / "README.md").read_text()
    assert "path: data/train.jsonl" in card and "path: data/held_out.jsonl" in card
    assert dataset.artifact.sha256 in card
    assert [path.name for path in out.parent.iterdir()] == ["export"]
    assert f"{len(train) + len(held_out)} rows" in capsys.readouterr().out


def test_the_card_survives_any_project_name(dataset: PreferenceDataset, project: Project) -> None:
    project.name = 'x"\n---\nlicense: stolen: {[\u2028'
    dataset.project = project
    card = exports.dataset_card(
        dataset=dataset, layout="trl", format="jsonl", counts={"train": 3, "held_out": 0}
    )
    header = card.split("\n---\n")[0]
    assert "license" not in [line.split(":")[0] for line in header.splitlines()]
    assert header.endswith("path: data/train.jsonl")


def test_an_export_that_is_cut_off_leaves_nothing(
    dataset: PreferenceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "dataset_card", fails)
    with pytest.raises(OSError, match="No space"):
        exports.dataset_export(dataset=dataset, layout="trl", format="jsonl", out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(
    dataset: PreferenceDataset, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(CommandError, match="there already"):
        call_command("export_preferences", project.uid, "--out", str(tmp_path))
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nobody"], "No project"), (["Helpfulness", "--dataset", "7"], "no dataset 7")],
)
def test_the_command_says_what_it_did_not_find(
    dataset: PreferenceDataset, tmp_path: Path, arguments: list[str], words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("export_preferences", *arguments, "--out", str(tmp_path / "x"))


def test_withdrawn_labels_are_in_no_export(dataset: PreferenceDataset, project: Project) -> None:
    gone = Submission.objects.first()
    Submission.objects.filter(pk=gone.pk).update(status=Submission.Status.WITHDRAWN)
    after = preference_dataset_freeze(project=project)
    assert gone.uid in {row["id"] for row in streamed(dataset, "rankings", "jsonl")}
    assert gone.uid not in {row["id"] for row in streamed(after, "rankings", "jsonl")}


@pytest.mark.ml
@pytest.mark.slow
@pytest.mark.parametrize("format", exports.FORMATS)
def test_datasets_and_trl_read_the_folder(
    dataset: PreferenceDataset, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the ml extra is not installed")
    pytest.importorskip("trl", reason="the ml extra is not installed")
    from trl.data_utils import is_conversational

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for layout in ("trl", "trl-text", "rankings"):
        out = tmp_path / layout
        exports.dataset_export(dataset=dataset, layout=layout, format=format, out=out)
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "held_out"}
        rows = streamed(dataset, layout, "jsonl", "train")
        told = loaded["train"].to_list()
        if (layout, format) == ("rankings", "parquet"):
            # A table has every column; a line leaves out what says nothing.
            for one, row in zip(told, rows, strict=True):
                added = [one.pop(name) for name in one.keys() - row.keys()]
                assert added == [None] * len(added)
        assert told == rows
        if layout != "rankings":
            assert is_conversational(loaded["train"][0]) is (layout == "trl")
