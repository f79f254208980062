"""T17: one byte changed anywhere above a version is found, and named."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.urls import reverse

from modelhub import storage
from modelhub.ml import sources
from modelhub.models import Artifact, ModelVersion, Run, RunInput
from modelhub.runner import run_execute
from modelhub.selectors.lineage import (
    lineage_bytes,
    lineage_titles,
    lineage_verify,
    version_lineage,
)
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from modelhub.services.versions import model_get_or_create, model_version_register
from tests.modelhub.counting import CountingConfig

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 1,
    "dtype": "float32",
    "context_tokens": 8,
    "chat_template": "{{ messages }}",
}


@dataclass
class Line:
    """snapshot → reward (v1) → policy (v1), which also reads the snapshot."""

    snapshot: Artifact
    reward: ModelVersion
    policy: ModelVersion


def stored(folder: Path, **files: str) -> Artifact:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return artifact_store(folder=folder, kind=Artifact.Kind.RANKINGS)


def trained(name: str, inputs: dict[str, Artifact], parent: ModelVersion | None) -> ModelVersion:
    run = runs.run_create(program="counting", config=CountingConfig(steps=2, seed=7), inputs=inputs)
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    return model_version_register(
        model=model_get_or_create(name=name),
        role="policy",
        artifact=run.outputs.get().artifact,
        parent=parent,
        run=run,
        facts=FACTS,
    )


@pytest.fixture
def line(db: None, tmp_path: Path) -> Line:
    snapshot = stored(
        tmp_path / "snapshot", total__txt="2.5", chat_template__jinja="{{ messages }}"
    )
    reward = trained("reward", {"start": snapshot}, None)
    policy = trained("policy", {"start": reward.artifact, "rankings": snapshot}, reward)
    return Line(snapshot, reward, policy)


def test_a_lineage_leads_from_a_version_to_all_it_was_made_of(line):
    root = version_lineage(version=line.policy)
    assert root.versions == [line.policy]
    assert root.run == line.policy.run
    assert [node.role for node in root.inputs] == ["rankings", "start"]
    snapshot, reward = root.inputs
    assert (snapshot.artifact, snapshot.run, snapshot.inputs) == (line.snapshot, None, [])
    assert reward.versions == [line.reward]
    (again,) = reward.inputs
    assert again.artifact == line.snapshot
    assert again.is_repeated
    sizes = [a.size_bytes for a in (line.snapshot, line.reward.artifact, line.policy.artifact)]
    assert lineage_bytes(root) == sum(sizes)


def test_a_lineage_costs_three_queries_a_generation(line, django_assert_num_queries):
    version = ModelVersion.objects.select_related("artifact").get(pk=line.policy.pk)
    with django_assert_num_queries(6):
        version_lineage(version=version)


def test_what_is_no_version_is_called_by_its_title_wherever_it_stands(line):
    ModelVersion.objects.filter(pk=line.policy.pk).update(parent=None)
    ModelVersion.objects.filter(pk=line.reward.pk).delete()  # an artifact is left, made by its run
    Run.objects.filter(pk=line.reward.run_id).update(label="a first draft")
    root = version_lineage(version=line.policy)
    lineage_titles(root)
    assert root.title == ""  # its version names it
    snapshot, draft = root.inputs
    assert "a first draft" in draft.title
    assert snapshot.title == ""  # nobody made it


def test_the_page_shows_those_titles_and_what_runs_were_for(line, eve, signed_in):
    Run.objects.filter(pk=line.policy.run_id).update(label="for the second round")
    page = signed_in(eve).get(reverse("version_detail", args=[line.policy.uid])).content.decode()
    assert "for the second round" in page


def test_an_untouched_lineage_has_no_difference(line):
    assert lineage_verify(version=line.policy) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def change_the_snapshot(line: Line, tmp_path: Path) -> None:
    flip(storage.artifact_folder(line.snapshot) / "total.txt")


def change_the_base(line: Line, tmp_path: Path) -> None:
    flip(storage.artifact_folder(line.reward.artifact) / "total.txt")


def change_the_configuration(line: Line, tmp_path: Path) -> None:
    config = {**line.reward.run.config, "steps": 3}
    Run.objects.filter(pk=line.reward.run_id).update(config=config)


def change_the_seed(line: Line, tmp_path: Path) -> None:
    config = {**line.reward.run.config, "seed": 8}
    Run.objects.filter(pk=line.reward.run_id).update(config=config)


def change_an_input(line: Line, tmp_path: Path) -> None:
    other = stored(tmp_path / "other", total__txt="9.5")
    RunInput.objects.filter(run=line.reward.run).update(artifact=other)


def change_the_source_hash(line: Line, tmp_path: Path) -> None:
    """As if counting.py had been edited since: its copy in another project root is."""
    root = tmp_path / "project"
    for name in line.reward.artifact.manifest["origin"]["sources"]:
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sources.ROOT.joinpath(*name.split(".")).with_suffix(".py").read_bytes())
    flip(root / "tests/modelhub/counting.py")
    sources.ROOT = root


@pytest.mark.parametrize(
    ("change", "subject", "message"),
    [
        (change_the_snapshot, "rankings (rankings", "total.txt has changed"),
        (change_the_base, "reward v1", "total.txt has changed"),
        (change_the_configuration, "run ", "config.steps is 3, but was 2 when it ran"),
        (change_the_seed, "run ", "config.seed is 8, but was 7 when it ran"),
        (change_an_input, "run ", "input start is"),
        (change_the_source_hash, "run ", "source file tests.modelhub.counting is not the one"),
    ],
)
def test_a_change_upstream_is_named(
    line,
    tmp_path,
    monkeypatch,
    change: Callable[[Line, Path], None],
    subject: str,
    message: str,
):
    monkeypatch.setattr(sources, "ROOT", sources.ROOT)
    change(line, tmp_path)
    found = lineage_verify(version=line.policy)
    assert found
    assert any(d.subject.startswith(subject) and message in d.message for d in found), found


def test_a_chat_template_changed_in_the_database_is_named(line):
    version = model_version_register(
        model=model_get_or_create(name="templated"),
        role="base",
        artifact=line.snapshot,
        parent=None,
        run=None,
        facts=FACTS,
    )
    assert lineage_verify(version=version) == []
    ModelVersion.objects.filter(pk=version.pk).update(chat_template="{{ messages[0] }}")
    version.refresh_from_db()
    (difference,) = lineage_verify(version=version)
    assert (difference.subject, difference.message) == (
        "templated v1",
        "its chat template is not the one of its files",
    )


def test_an_output_that_does_not_say_how_it_was_made_is_named(line, tmp_path):
    plain = stored(tmp_path / "plain", total__txt="1.0")
    line.policy.run.outputs.update(artifact=plain)
    ModelVersion.objects.filter(pk=line.policy.pk).update(artifact=plain)
    version = ModelVersion.objects.get(pk=line.policy.pk)
    found = lineage_verify(version=version)
    assert [one.message for one in found] == ["policy v1 does not say how it was made"]
