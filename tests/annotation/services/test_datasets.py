"""Freezing: one hash for the same judgements, counts that reconcile, nothing that can change."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from annotation.models import Assignment, Membership, PreferenceDataset, Project, Submission
from annotation.records import RankingRecord
from annotation.services.assignments import assignment_next
from annotation.services.datasets import (
    RANKINGS_NAME,
    preference_dataset_freeze,
    preference_dataset_verify,
)
from annotation.services.projects import guideline_publish, membership_remove
from annotation.services.rankings import ranking_submit
from modelhub.errors import ApplicationError
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import RecordError, records_read
from modelhub.models import Artifact
from modelhub.storage import artifact_folder
from tests.annotation.frozen_hash import frozen_hash, hostile_rows, schema_copy
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_project, make_ranking_task

pytestmark = pytest.mark.django_db
Status = Submission.Status


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def judged(project: Project, ann: Membership) -> list[Submission]:
    make_answered_batch(project, prompts=6)
    return rank_all(ann)


def rows_of(dataset: PreferenceDataset) -> list[RankingRecord]:
    return list(records_read(artifact_folder(dataset.artifact) / RANKINGS_NAME, RankingRecord))


def test_a_row_holds_all_that_training_may_know(project: Project, ann: Membership) -> None:
    guideline_publish(project=project, text="Be fair.", author=None)
    task = make_ranking_task(project, texts=("x", "y"))
    a, b = [one.candidate for one in task.task_candidates.all()]
    assignment = assignment_next(membership=ann)
    submission = ranking_submit(
        assignment=assignment,
        tiers=[[b.uid], [a.uid]],
        unacceptable=[a.uid],
        rationale="y is right",
        active_s=3.5,
    )
    (row,) = rows_of(preference_dataset_freeze(project=project))
    assert row == RankingRecord(
        id=submission.uid,
        prompt_id=task.prompt.uid,
        messages=task.prompt.messages,
        split=task.prompt.split,
        tags=[],
        batch=task.batch.uid,
        candidates=[
            {
                "id": one.uid,
                "text": one.text,
                "finish_reason": "stop",
                "token_count": 1,
                "model_version": one.version.uid,
            }
            for one in sorted((a, b), key=lambda candidate: candidate.uid)
        ],
        tiers=[[b.uid], [a.uid]],
        unacceptable=[a.uid],
        annotator=ann.uid,
        is_simulated=False,
        shown_order=submission.shown_order,
        active_s=3.5,
        rationale="y is right",
        guideline=1,
    )


def test_a_text_preferred_to_itself_is_in_no_snapshot(project: Project, ann: Membership) -> None:
    for texts in (("same", "same"), ("x", "y")):
        task = make_ranking_task(project, texts=texts)
        a, b = [one.candidate.uid for one in task.task_candidates.all()]
        ranking_submit(assignment=assignment_next(membership=ann), tiers=[[b], [a]])
    dataset = preference_dataset_freeze(project=project)
    (row,) = rows_of(dataset)
    assert [one["text"] for one in row.candidates if one["id"] == b] == ["y"]
    counts = dataset.counts
    assert (counts["total"], counts["used"], counts["excluded"]["same_text"]) == (2, 1, 1)
    preference_dataset_verify(dataset=dataset)


def test_rows_are_sorted_by_id(judged: list[Submission], project: Project) -> None:
    dataset = preference_dataset_freeze(project=project)
    assert [row.id for row in rows_of(dataset)] == sorted(one.uid for one in judged)
    preference_dataset_verify(dataset=dataset)


def test_the_same_judgements_frozen_again_are_the_same_dataset(
    judged: list[Submission], project: Project
) -> None:
    first = preference_dataset_freeze(project=project)
    assert preference_dataset_freeze(project=project) == first
    assert first.number == 1
    Submission.objects.filter(pk=judged[0].pk).update(status=Status.WITHDRAWN)
    second = preference_dataset_freeze(project=project)
    assert second.number == 2
    assert second.artifact != first.artifact


def test_nothing_to_freeze_is_refused(project: Project) -> None:
    make_ranking_task(project)
    with pytest.raises(ApplicationError, match="no accepted ranking"):
        preference_dataset_freeze(project=project)
    assert not PreferenceDataset.objects.exists()


def test_counts_reconcile_by_status_and_drafts_and_skips_are_not_in_them(
    judged: list[Submission], project: Project
) -> None:
    for submission, status in zip(
        judged[:3], (Status.REJECTED, Status.WITHDRAWN, Status.SURPLUS), strict=True
    ):
        Submission.objects.filter(pk=submission.pk).update(status=status)
    make_ranking_task(project)
    drafting = assignment_next(membership=make_member(project, "ben"))
    Assignment.objects.filter(pk=drafting.pk).update(draft={"tiers": []})
    counts = preference_dataset_freeze(project=project).counts
    excluded = {reason: count for reason, count in counts["excluded"].items() if count}
    assert excluded == {"rejected": 1, "withdrawn": 1, "surplus": 1}
    assert counts["total"] == counts["used"] + sum(counts["excluded"].values()) == 6
    assert counts["used"] == sum(counts["used_by_split"].values()) == 3


def test_the_judgements_of_a_person_who_left_are_used_under_their_pseudonym(
    project: Project,
) -> None:
    zelda = make_member(project, "zelda-fitzgerald")
    make_answered_batch(project)
    rank_all(zelda)
    membership_remove(membership=zelda)
    dataset = preference_dataset_freeze(project=project)
    assert {row.annotator for row in rows_of(dataset)} == {zelda.uid}
    assert "zelda" not in (artifact_folder(dataset.artifact) / RANKINGS_NAME).read_text()


def test_a_query_takes_batches_splits_people_and_times(project: Project, ann: Membership) -> None:
    first = make_answered_batch(project, prompts=2)
    rank_all(ann)
    middle = timezone.now()
    second = make_answered_batch(project, prompts=3)
    rank_all(make_member(project, "robot", simulated=True))
    Submission.objects.filter(task__batch=first).update(created_at=middle - timedelta(hours=1))

    def used(**query: object) -> tuple[int, dict[str, int]]:
        counts = preference_dataset_freeze(project=project, query=query).counts
        assert counts["total"] == counts["used"] + sum(counts["excluded"].values()) == 5
        return counts["used"], {k: n for k, n in counts["excluded"].items() if n}

    assert used() == (5, {})
    assert used(batches=[second.uid]) == (3, {"other_batch": 2})
    assert used(batches=[second.uid, first.uid]) == (5, {})
    assert used(splits=["train"]) == (5, {})
    assert used(simulated=False) == (2, {"other_origin": 3})
    assert used(simulated=True) == (3, {"other_origin": 2})
    assert used(until=middle.isoformat()) == (2, {"after_until": 3})
    assert used(until=middle.isoformat(), batches=[first.uid]) == (2, {"after_until": 3})
    with pytest.raises(ApplicationError, match="no accepted ranking"):
        used(splits=["held_out"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "rejected"}, "status"),
        ({"batches": "abc"}, "batches"),
        ({"batches": ["0" * 32]}, "batches"),
        ({"batches": [7]}, "batches"),
        ({"splits": ["test"]}, "splits"),
        ({"simulated": "yes"}, "simulated"),
        ({"simulated": 1}, "simulated"),
        ({"until": "yesterday"}, "until"),
        ({"until": "2026-13-01T00:00:00Z"}, "until"),
        ({"until": "2026-01-01T00:00:00"}, "until"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_by_field(
    judged: list[Submission], project: Project, query: dict, field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        preference_dataset_freeze(project=project, query=query)
    assert refused.value.extra == {"field": field}


def test_a_batch_of_another_project_cannot_be_asked_for(
    judged: list[Submission], project: Project
) -> None:
    foreign = make_answered_batch(make_project("Other"))
    with pytest.raises(ApplicationError, match=foreign.uid):
        preference_dataset_freeze(project=project, query={"batches": [foreign.uid]})


def test_a_dataset_does_not_move_when_its_sources_do(
    judged: list[Submission], project: Project
) -> None:
    dataset = preference_dataset_freeze(project=project)
    before = (artifact_folder(dataset.artifact) / RANKINGS_NAME).read_bytes()
    Submission.objects.update(status=Status.WITHDRAWN, rationale="changed my mind")
    judged[0].ranking.tiers = []
    judged[0].ranking.save()
    assert (artifact_folder(dataset.artifact) / RANKINGS_NAME).read_bytes() == before
    preference_dataset_verify(dataset=dataset)


def test_every_tampering_with_a_frozen_dataset_is_found(
    judged: list[Submission], project: Project
) -> None:
    dataset = preference_dataset_freeze(project=project)
    Submission.objects.filter(pk=judged[0].pk).update(status=Status.REJECTED)
    other = preference_dataset_freeze(project=project)
    mine = PreferenceDataset.objects.filter(pk=dataset.pk)
    file = artifact_folder(dataset.artifact) / RANKINGS_NAME

    def found(words: str) -> None:
        with pytest.raises((IntegrityError, RecordError), match=words):
            preference_dataset_verify(dataset=dataset)

    mine.update(counts=dataset.counts | {"used": 99})
    found("counts has changed")
    mine.update(counts=dataset.counts, query=dataset.query | {"simulated": True})
    found("query has changed")
    mine.update(query=dataset.query, artifact=other.artifact)
    found("counts has changed")
    mine.update(artifact=dataset.artifact)
    preference_dataset_verify(dataset=dataset)

    manifest = dataset.artifact.manifest
    Artifact.objects.filter(pk=dataset.artifact_id).update(manifest={"files": {}})
    found("manifest")
    Artifact.objects.filter(pk=dataset.artifact_id).update(manifest=manifest)

    content = file.read_bytes()
    file.write_bytes(content.replace(b'"active_s":1.25', b'"active_s":9.25', 1))
    found(f"{RANKINGS_NAME} has changed")
    file.write_bytes(content)
    preference_dataset_verify(dataset=dataset)
    file.unlink()
    found(f"{RANKINGS_NAME} is missing")


@pytest.mark.slow
def test_one_hash_in_any_order_locale_time_zone_and_hash_seed(tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(hostile_rows()))
    environments = [
        {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0"},
        {"LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "EST5EDT", "PYTHONHASHSEED": "77"},
    ]
    hashes = set()
    for order, environment in enumerate(environments):
        folder = tmp_path / str(order)
        folder.mkdir()
        schema_copy(folder / "rondo.sqlite3")
        hashes.add(frozen_hash(source, order=order, data_dir=folder, environment=environment))
    assert len(hashes) == 1
