"""Snapshots and exports of every kind but rankings, whose own tests they had first."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.conf import settings

from annotation import exports
from annotation.layouts import COMPARING, LAYOUTS, layouts_of
from annotation.models import (
    Adjudication,
    Candidate,
    Membership,
    PreferenceDataset,
    Project,
    Prompt,
    Submission,
    Task,
    TaskForm,
)
from annotation.parquet import NEWER
from annotation.records import RANKINGS_NAME, DemonstrationRecord, RankingRecord, RatingRecord
from annotation.services.assignments import assignment_next
from annotation.services.datasets import (
    preference_dataset_freeze,
    preference_dataset_import,
    preference_dataset_verify,
)
from annotation.services.demonstrations import demonstration_submit
from annotation.services.dialogues import dialogue_answers, dialogue_submit
from annotation.services.edits import edit_submit
from annotation.services.kinds import judgement_submit
from annotation.services.pairs import pair_submit
from annotation.services.ratings import rating_submit
from annotation.services.snapshot_rows import SNAPSHOT_KINDS
from annotation.splits import group_hash, split_of
from modelhub.errors import ApplicationError
from modelhub.ml.records import records_read
from modelhub.storage import artifact_folder
from tests.builders import make_member, make_project, make_task
from tests.modelhub.streaming_server import streaming_server

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def uid_of(text: str) -> str:
    return Candidate.objects.get(text=text).uid


def rows_of(dataset: PreferenceDataset) -> list[Any]:
    told = SNAPSHOT_KINDS[dataset.kind]
    preference_dataset_verify(dataset=dataset)
    return list(records_read(artifact_folder(dataset.artifact) / told.file, told.record))


def exported(dataset: PreferenceDataset, layout: str, format: str = "jsonl") -> list[Any]:
    data = b"".join(exports.dataset_export_stream(dataset=dataset, layout=layout, format=format))
    if format == "jsonl":
        return [json.loads(line) for line in data.split(b"\n")[:-1]]
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    if layout == "rankings":
        rows = [{k: v for k, v in r.items() if v is not None or k not in NEWER} for r in rows]
    return rows


def a_pair(project: Project, ann: Membership) -> None:
    TaskForm.objects.create(project=project, kind="pair", settings={"safety_labels": True})
    make_task(project, "pair", ("Good.", "Bad."))
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    pair_submit(assignment=assignment, better=uid_of("Good."), degree=3, unsafe=[uid_of("Bad.")])


def an_edit(project: Project, ann: Membership) -> None:
    make_task(project, "edit", ("It is big.", "No."))
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    edit_submit(assignment=assignment, original=uid_of("It is big."), text="It is very big.")


def a_rating(project: Project, ann: Membership) -> None:
    make_task(project, "rating", ("Good.", "Bad.", "Middling."))
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    rating_submit(
        assignment=assignment,
        ratings={
            uid_of("Good."): {"overall": 5, "flags": []},
            uid_of("Bad."): {"overall": 3, "flags": ["wrong"]},
            uid_of("Middling."): {"overall": 4, "flags": []},
        },
    )


def a_demonstration(project: Project, ann: Membership) -> None:
    TaskForm.objects.create(project=project, kind="demonstration", settings={"turns": 2})
    make_task(project, "demonstration", ("A draft.",))
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    demonstration_submit(
        assignment=assignment,
        text="An answer.",
        started_from=uid_of("A draft."),
        turns=[{"user": "Why?", "text": "Because."}],
    )


def a_dialogue(project: Project, ann: Membership) -> None:
    TaskForm.objects.create(
        project=project,
        kind="dialogue",
        settings={"sides": [{"endpoint": "small"}, {"endpoint": "large"}]},
    )
    make_task(project, "dialogue", ())
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    turns: list[Any] = []
    with streaming_server() as server:
        server.endpoint("small")
        server.endpoint("large")
        after = None
        for number, user in enumerate(("Hello.", "Why?")):
            *_, turn = dialogue_answers(assignment=assignment, user=user, after=after, turn=number)
            after = turn.second.uid
            turns.append(
                {
                    "user": user,
                    "candidates": [turn.first.uid, turn.second.uid],
                    "chosen": after,
                    "degree": 4 - number,
                }
            )
    dialogue_submit(assignment=assignment, turns=turns)


MAKERS = {
    "pair": a_pair,
    "edit": an_edit,
    "rating": a_rating,
    "demonstration": a_demonstration,
    "dialogue": a_dialogue,
}


@pytest.fixture(params=MAKERS)
def dataset(
    project: Project, ann: Membership, request: pytest.FixtureRequest
) -> Iterator[PreferenceDataset]:
    MAKERS[request.param](project, ann)
    yield preference_dataset_freeze(project=project, kind=request.param)


def test_every_layout_says_the_same_in_both_formats(dataset: PreferenceDataset) -> None:
    for layout in layouts_of(dataset.kind):
        rows = exported(dataset, layout.name)
        assert rows
        assert exported(dataset, layout.name, "parquet") == rows
    assert exported(dataset, "") == exported(dataset, layouts_of(dataset.kind)[0].name)
    for name in set(LAYOUTS) - {layout.name for layout in layouts_of(dataset.kind)}:
        with pytest.raises(ApplicationError, match="No layout"):
            exported(dataset, name)


def test_the_same_judgements_are_the_same_dataset(
    dataset: PreferenceDataset, project: Project
) -> None:
    again = preference_dataset_freeze(project=project, kind=dataset.kind)
    assert again == dataset
    assert dataset.counts["total"] == dataset.counts["used"] == 1
    rows = rows_of(dataset)
    assert dataset.counts.get("rows", 1) == len(rows)
    assert sum(dataset.counts["used_by_split"].values()) == len(rows)


def test_it_is_a_dataset_of_its_kind_alone(dataset: PreferenceDataset, project: Project) -> None:
    for kind in set(SNAPSHOT_KINDS) - {dataset.kind}:
        with pytest.raises(ApplicationError, match="no accepted"):
            preference_dataset_freeze(project=project, kind=kind)


def test_what_was_taken_back_is_left_out_and_counted(
    dataset: PreferenceDataset, project: Project
) -> None:
    Submission.objects.update(status="withdrawn")
    with pytest.raises(ApplicationError) as refused:
        preference_dataset_freeze(project=project, kind=dataset.kind)
    counts = refused.value.extra["counts"]
    assert (counts["total"], counts["used"], counts["excluded"]["withdrawn"]) == (1, 0, 1)


def test_what_measures_people_is_no_data(dataset: PreferenceDataset, project: Project) -> None:
    Task.objects.update(gold={"better": None})
    with pytest.raises(ApplicationError) as refused:
        preference_dataset_freeze(project=project, kind=dataset.kind)
    assert refused.value.extra["counts"]["total"] == 0


def test_a_product_and_a_judge_are_told_from_people(
    dataset: PreferenceDataset, project: Project
) -> None:
    for source, is_simulated in (("product", False), ("model", True), ("simulated", True)):
        Submission.objects.update(source=source)
        made = preference_dataset_freeze(project=project, kind=dataset.kind)
        row = rows_of(made)[0]
        assert row.is_simulated is is_simulated
        assert exported(made, "")[0]["source"] == source
        asked = {"sources": [source]}
        assert preference_dataset_freeze(project=project, kind=dataset.kind, query=asked)
        with pytest.raises(ApplicationError, match="no accepted"):
            preference_dataset_freeze(
                project=project, kind=dataset.kind, query={"sources": ["person"]}
            )


def test_a_weight_is_on_every_row_and_in_the_query(
    dataset: PreferenceDataset, project: Project, ann: Membership
) -> None:
    weighed = preference_dataset_freeze(
        project=project, kind=dataset.kind, weights={ann.uid: 0.12345, "f" * 32: 1.0}
    )
    assert weighed != dataset
    assert weighed.query["weights"] == {ann.uid: 0.123}
    assert {row.weight for row in rows_of(weighed)} == {0.123}
    assert {row["weight"] for row in exported(weighed, "")} == {0.123}
    with pytest.raises(ApplicationError, match="0 to 1"):
        preference_dataset_freeze(project=project, kind=dataset.kind, weights={ann.uid: 1.5})


def test_a_pair_as_worked_by_hand(project: Project, ann: Membership) -> None:
    a_pair(project, ann)
    dataset = preference_dataset_freeze(project=project, kind="pair")
    (row,) = rows_of(dataset)
    assert isinstance(row, RankingRecord)
    assert row.tiers == [[uid_of("Good.")], [uid_of("Bad.")]]
    assert (row.kind, row.degree, row.unsafe) == ("pair", 3, [uid_of("Bad.")])
    (told,) = exported(dataset, "trl")
    assert told["chosen"] == [{"role": "assistant", "content": "Good."}]
    assert told["margin"] == 2 / 3  # "better", in Llama 2's small margin
    assert (told["degree"], told["chosen_unsafe"], told["rejected_unsafe"]) == (3, False, True)


def test_a_tie_is_a_row_and_no_pair(project: Project, ann: Membership) -> None:
    make_task(project, "pair")
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    pair_submit(assignment=assignment, better=None, degree=0)
    dataset = preference_dataset_freeze(project=project, kind="pair")
    (row,) = rows_of(dataset)
    assert [len(tier) for tier in row.tiers] == [2]
    assert (row.degree, row.unsafe) == (0, None)
    assert exported(dataset, "trl") == []


def test_an_edit_is_a_pair_and_its_diff_without_a_degree(project: Project, ann: Membership) -> None:
    an_edit(project, ann)
    dataset = preference_dataset_freeze(project=project, kind="edit")
    (row,) = rows_of(dataset)
    assert row.tiers == [[uid_of("It is very big.")], [uid_of("It is big.")]]
    assert row.diff == [["=", "It is "], ["+", "very "], ["=", "big."]]
    assert row.degree is None
    (told,) = exported(dataset, "trl-text")
    assert (told["chosen"], told["rejected"]) == ("It is very big.", "It is big.")
    assert told["chosen_model_version"] is None
    assert "margin" not in told


def test_each_turn_of_a_dialogue_is_a_pair_after_the_talk_so_far(
    project: Project, ann: Membership
) -> None:
    a_dialogue(project, ann)
    dataset = preference_dataset_freeze(project=project, kind="dialogue")
    first, second = rows_of(dataset)
    uid = Submission.objects.get().uid
    assert (first.id, second.id) == (f"{uid}-00", f"{uid}-01")
    assert dataset.counts["rows"] == 2
    assert [one["role"] for one in second.messages] == ["user", "assistant", "user"]
    chosen = next(one for one in first.candidates if one["id"] == first.tiers[0][0])
    assert second.messages[1]["content"] == chosen["text"]
    assert (first.split, first.degree, second.degree) == (second.split, 4, 3)
    assert [row["margin"] for row in exported(dataset, "trl")] == [1.0, 2 / 3]


def test_ratings_say_good_or_bad_and_the_middle_says_neither(
    project: Project, ann: Membership
) -> None:
    a_rating(project, ann)
    dataset = preference_dataset_freeze(project=project, kind="rating")
    rows = rows_of(dataset)
    assert len(rows) == dataset.counts["rows"] == 3
    assert all(isinstance(row, RatingRecord) for row in rows)
    told = {row["completion"]: row for row in exported(dataset, "trl-unpaired-text")}
    assert {text: row["label"] for text, row in told.items()} == {"Good.": True, "Bad.": False}
    assert (told["Bad."]["overall"], told["Bad."]["flags"]) == (3, ["wrong"])


def test_a_demonstration_is_a_completion_for_each_answer(project: Project, ann: Membership) -> None:
    a_demonstration(project, ann)
    dataset = preference_dataset_freeze(project=project, kind="demonstration")
    (row,) = rows_of(dataset)
    assert isinstance(row, DemonstrationRecord)
    assert (row.candidate["text"], row.started_from) == ("An answer.", uid_of("A draft."))
    first, second = exported(dataset, "trl-completion")
    assert first["completion"] == [{"role": "assistant", "content": "An answer."}]
    assert first["prompt"] == row.messages
    assert second["prompt"][1:] == [
        {"role": "assistant", "content": "An answer."},
        {"role": "user", "content": "Why?"},
    ]
    assert second["completion"][0]["content"] == "Because."


@pytest.mark.parametrize("kind", [kind for kind in COMPARING if kind != "ranking"])
def test_what_compares_can_be_taken_in_elsewhere(
    project: Project, ann: Membership, kind: str
) -> None:
    MAKERS[kind](project, ann)
    for prompt in Prompt.objects.all():  # elsewhere the side of a prompt is that of its words
        prompt.split = split_of(group_hash(prompt.messages), settings.PROMPT_SPLIT_SHARES)
        prompt.save()
    dataset = preference_dataset_freeze(project=project, kind=kind)
    for format in exports.FORMATS:
        data = b"".join(
            exports.dataset_export_stream(dataset=dataset, layout="rankings", format=format)
        )
        taken = preference_dataset_import(
            project=make_project("Elsewhere"),
            lines=io.BytesIO(data),
            name="rows",
            created_by=None,
        )
        assert list(
            records_read(artifact_folder(taken.artifact) / RANKINGS_NAME, RankingRecord)
        ) == rows_of(dataset)


def test_where_a_reviewer_decided_one_judgement_stands(project: Project, ann: Membership) -> None:
    ben = make_member(project, "ben")
    bob = make_member(project, "bob", Membership.Role.REVIEWER)
    task = make_task(project, "pair", ("Good.", "Bad."), overlap=2)
    for member, better in ((ann, "Bad."), (ben, "Good.")):
        assignment = assignment_next(membership=member)
        assert assignment is not None
        judgement_submit(
            assignment=assignment,
            judgement={"better": uid_of(better), "degree": 2, "unsafe": []},
        )
    before = preference_dataset_freeze(project=project, kind="pair")
    assert before.counts["used"] == 2 and "overruled" not in before.counts["excluded"]
    standing = Submission.objects.get(annotator=ben)
    Adjudication.objects.create(task=task, reviewer=bob, submission=standing)
    dataset = preference_dataset_freeze(project=project, kind="pair")
    assert [row.id for row in rows_of(dataset)] == [standing.uid]
    assert dataset.counts["excluded"]["overruled"] == 1
    assert dataset.counts["total"] == 2
