"""What the reference runs count, by hand: no model is asked."""

import gzip
import json

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from benchmarks.feedback_reference import agreement, comparisons_read
from benchmarks.ghost_reference import dialogues_make, is_kept, turns_describe
from benchmarks.runs import metrics_table
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    """Three in which "Yes." was chosen, and one that is too long."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl.gz"
    asked = [f"\n\nHuman: Is {one} so?\n\nAssistant: " for one in ("a", "b", "c", "long" * 50)]
    rows = [{"chosen": f"{one}Yes.", "rejected": f"{one}No."} for one in asked]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return comparisons_read(path, tiny_tokenizer(), 10)


def test_labels_are_held_against_what_people_chose(comparisons):
    assert len(comparisons) == 3
    right, wrong, tied = comparisons
    better = {right.id: right.tiers[0][0], wrong.id: wrong.tiers[1][0], tied.id: None}
    found = agreement(comparisons, better)
    assert (found["labelled"], found["decided"]) == (3, 2)
    assert found["with_people"]["mean"] == 0.5
    assert found["with_people_where_decided"]["mean"] == 0.5
    found = agreement(comparisons, {right.id: right.tiers[0][0]})
    assert (found["labelled"], found["with_people"]["mean"]) == (1, 1.0)
    assert agreement(comparisons, {})["with_people"] is None


@pytest.mark.parametrize(
    ("text", "finish_reason", "kept"),
    [
        ("The moon pulls the sea.", "stop", True),
        ("About 3.5 hours", "stop", True),
        ("It does. Often.", "stop", False),
        ("One line\nand another", "stop", False),
        ("The moon pulls", "length", False),
        ("", "stop", False),
        ("word " * 26, "stop", False),
    ],
)
def test_a_short_sentence_is_told_from_what_is_none(text, finish_reason, kept):
    assert is_kept(text, finish_reason) == kept


def test_turns_tell_what_training_changed():
    before, after = [[True, True], [False, False]], [[True, True], [True, False]]
    first, second = turns_describe(before, after, told=[[True, True], [True, True]])
    assert first == {
        "turn": 1,
        "before": 1.0,
        "after": 1.0,
        "difference": [0.0, 0.0, 0.0],
        "told_at_every_turn": 1.0,
    }
    assert (second["turn"], second["before"], second["after"]) == (2, 0.0, 0.5)
    assert second["difference"] == [0.5, 0.0, 1.0]


def test_dialogues_take_each_question_once():
    one, two = dialogues_make(["a", "b", "c", "d", "e"], 2)
    assert [m["content"] for m in one.messages if m["role"] == "user"] == ["a", "b"]
    assert [m["content"] for m in two.messages if m["role"] == "user"] == ["c", "d"]
    assert one.messages[-1]["role"] == "user"


def test_a_runs_figures_are_a_table_of_the_steps_that_have_all_of_them(tmp_path):
    lines = [(0, {"loss": 2.0, "lr": 1e-4}), (1, {"lr": 1e-4}), (2, {"loss": 1.5, "lr": 1e-5})]
    lines += [(2, {"loss": 1.25, "lr": 1e-5})]  # told again behind a kill
    text = "".join(json.dumps({"step": step, "values": own}) + "\n" for step, own in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert metrics_table(tmp_path, "loss", "lr").splitlines() == [
        "| step | loss | lr |",
        "| --- | --- | --- |",
        "| 0 | 2 | 0.0001 |",
        "| 2 | 1.25 | 1e-05 |",
    ]
    assert metrics_table(tmp_path, "loss", every=10).splitlines() == [
        "| steps | loss |",
        "| --- | --- |",
        "| 0–2 | 1.625 |",
    ]
