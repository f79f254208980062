"""What came from what, both ways, and that a change anywhere upstream is found and named."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from alignment.models import Campaign, Round
from alignment.selectors.lineage import (
    candidate_lineage,
    dataset_submissions,
    datasets_labelling,
    submission_descent,
)
from annotation.models import Candidate, Membership, PreferenceDataset
from modelhub.models import Artifact
from modelhub.selectors.lineage import lineage_verify
from modelhub.storage import artifact_folder
from tests.alignment import hands


def test_from_a_candidate_one_walks_to_the_people_and_back(
    campaign: Campaign, people: list[Membership]
) -> None:
    first = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    second = hands.make_round(campaign, key="another")
    hands.round_walk(second, people, until="annotating")
    candidate = Candidate.objects.filter(batch=second.batch).first()
    assert candidate is not None
    lineage = candidate_lineage(candidate=candidate)
    assert first.policy_out in lineage.versions()
    assert first.reward_version in lineage.versions()
    assert campaign.base_version in lineage.versions()
    assert lineage.datasets() == [first.dataset]
    programs = {run.program for run in lineage.runs()}
    assert programs == {"generate", "sft", "rejection", "reward"}
    labelling = datasets_labelling(datasets=lineage.datasets())
    assert labelling.rankings == 5 and labelling.annotators == people[:1]
    assert first.dataset is not None
    submissions = list(dataset_submissions(dataset=first.dataset))
    assert len(submissions) == 5
    # And back: what the first judgement has become.
    descent = submission_descent(submission=submissions[0])
    assert set(descent.versions) == {first.reward_version, first.policy_out}
    assert second.batch in descent.batches
    assert Candidate.objects.filter(batch__in=descent.batches, pk=candidate.pk).exists()
    assert first.batch not in descent.batches  # written before anybody had judged


@pytest.fixture
def promoted(campaign: Campaign, people: list[Membership]) -> Round:
    return hands.round_walk(hands.make_round(campaign), people, until="promoted")


def artifact_of(round: Round, role: str, output: str) -> Artifact:
    run = round.round_runs.get(role=role, stage="improving").run
    return run.outputs.get(role=output).artifact


def byte_flip(artifact: Artifact, name: str) -> None:
    path: Path = artifact_folder(artifact) / name
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def base_change(round: Round) -> None:
    byte_flip(round.policy_in.artifact, "weights.txt")


def snapshot_change(round: Round) -> None:
    assert round.dataset is not None
    byte_flip(round.dataset.artifact, "rankings.jsonl")


def demonstrations_change(round: Round) -> None:
    byte_flip(artifact_of(round, "rejection", "demonstrations"), "demonstrations.jsonl")


def counts_change(round: Round) -> None:
    PreferenceDataset.objects.update(counts={"used": 4})


@pytest.mark.parametrize(
    ("change", "subject", "message"),
    [
        (base_change, "small v1", "weights.txt"),
        (snapshot_change, "rankings", "rankings.jsonl"),
        (demonstrations_change, "demonstrations", "demonstrations.jsonl"),
        (counts_change, "dataset 1", "counts"),
    ],
)
def test_one_change_anywhere_upstream_is_found_and_named(
    promoted: Round, change: Callable[[Round], None], subject: str, message: str
) -> None:
    assert promoted.policy_out is not None
    before = lineage_verify(version=promoted.policy_out)
    change(promoted)
    found = [one for one in lineage_verify(version=promoted.policy_out) if one not in before]
    assert any(subject in one.subject and message in one.message for one in found), found


@pytest.mark.parametrize(
    ("change", "named"),
    [(snapshot_change, "rankings.jsonl"), (counts_change, "counts"), (base_change, "weights.txt")],
)
def test_the_command_names_what_has_changed_down_to_the_rankings(
    promoted: Round, change: Callable[[Round], None], named: str
) -> None:
    assert promoted.policy_out is not None
    before = lineage_verify(version=promoted.policy_out)
    # These runs' outputs were written by hand, without their origin; nothing else differs.
    assert all(one.message.endswith("does not say how it was made") for one in before)
    change(promoted)
    said = io.StringIO()
    with pytest.raises(CommandError, match="difference"):
        call_command("verify_lineage", "small@2", stderr=said)
    assert named in said.getvalue()
    with pytest.raises(CommandError, match="MODEL@NUMBER"):
        call_command("verify_lineage", "small")


def test_verify_on_the_hubs_page_compares_the_rows_behind_the_snapshots(
    promoted: Round, client: Client
) -> None:
    assert promoted.policy_out is not None
    client.force_login(User.objects.create_user("eve", is_staff=True))
    url = reverse("version_verify", args=[promoted.policy_out.uid])
    assert "dataset 1" not in client.post(url).content.decode()
    counts_change(promoted)
    page = client.post(url).content.decode()
    assert "It is not what it was made of" in page
    assert "dataset 1" in page and "counts" in page
