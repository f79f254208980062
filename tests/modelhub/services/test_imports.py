"""Imports: only what lies below an import folder, and a version when the run has ended."""

import json
import os
from pathlib import Path

import pytest

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ImportModelConfig
from modelhub.ml.manifest import manifest_write
from modelhub.models import Model, ModelVersion, Run
from modelhub.packaged import packaged_models
from modelhub.runner import run_execute
from modelhub.services.imports import model_import_request

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 1000,
    "dtype": "float32",
    "context_tokens": 128,
    "chat_template": "",
    "source": "directory",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "import"
    (folder / "smol").mkdir(parents=True)
    (folder / "smol/config.json").write_text("{}")
    (folder / "smol.gguf").write_bytes(b"GGUF")
    return folder


def request(location: object, source: str = "directory", model: str = "smol") -> Run:
    config = ImportModelConfig(source=source, location=str(location), model=model, card="A card.")
    return model_import_request(config=config, requested_by=None)


@pytest.mark.parametrize("relative", [True, False])
def test_a_folder_and_a_file_below_the_import_folder_are_taken(db, root, relative):
    for name, source in (("smol", "directory"), ("smol.gguf", "gguf")):
        run = request(name if relative else root / name, source)
        assert run.config["location"] == str(root / name)
        assert run.status == Run.Status.QUEUED


def test_nothing_is_registered_before_the_run_has_ended(db, root):
    request("smol")
    assert not Model.objects.exists()


@pytest.mark.parametrize(
    "location",
    [
        "/",
        "/etc",
        "/etc/passwd",
        "/proc/self/environ",
        "~/models",
        "file:///etc/passwd",
        "..",
        "../artifacts",
        "smol/../../artifacts",
        ".",
        "not-there",
        "smol\x00",
    ],
)
@pytest.mark.parametrize("source", ["directory", "gguf"])
def test_what_lies_elsewhere_is_refused_as_if_it_were_not_there(db, root, location, source):
    (root.parent / "artifacts").mkdir()
    with pytest.raises(ApplicationError, match=r"is not there|is no path") as refused:
        request(location, source)
    assert refused.value.extra == {"field": "location"}
    assert not Run.objects.exists()


def test_a_link_out_of_the_import_folder_is_not_followed(db, root):
    (root / "door").symlink_to("/etc")
    with pytest.raises(ApplicationError, match="is not there"):
        request("door")
    (root / "smol/weights.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(ApplicationError, match=r"holds weights\.safetensors, a link to outside"):
        request("smol")


def test_a_link_that_stays_inside_is_followed(db, root):
    """A hub's cache lays a model out as links to its blobs."""
    (root / "blobs").mkdir()
    (root / "blobs/abc").write_bytes(b"weights")
    (root / "smol/weights.safetensors").symlink_to("../blobs/abc")
    assert request("smol").pk


def test_a_folder_is_no_file_and_a_file_no_folder(db, root):
    with pytest.raises(ApplicationError, match="is a folder"):
        request("smol", "gguf")
    with pytest.raises(ApplicationError, match="is no folder"):
        request("smol.gguf", "directory")


def test_a_pipe_is_neither(db, root):
    os.mkfifo(root / "pipe.gguf")
    with pytest.raises(ApplicationError, match=r"'pipe\.gguf' is a pipe: name a file or a folder"):
        request("pipe.gguf", "gguf")


@pytest.mark.parametrize("location", ["smol", "a/b/c", "../x/y", "a/..", "https://x/y", "a /b"])
def test_a_hub_id_is_an_organisation_and_a_name(db, location):
    with pytest.raises(ApplicationError, match="no hub id"):
        request(location, "hub")


def test_a_hub_id_is_taken_as_it_is(db):
    assert request("org/Model-1.5", "hub").config["location"] == "org/Model-1.5"


def test_a_name_that_cannot_be_a_models_is_refused_before_anything_runs(db, root):
    with pytest.raises(ApplicationError, match="cannot name a model"):
        request("smol", model="two words")
    assert not Run.objects.exists()


def test_an_installed_model_package_may_be_imported(db, root):
    for path in packaged_models().values():
        assert request(path, "gguf").config["location"] == str(path)
    with pytest.raises(ApplicationError, match="is not there"):
        request(Path(pytest.__file__).parent / "py.typed", "gguf")


def imported(run: Run, facts: dict[str, object]) -> Run:
    """The run, executed on a directory in which the program has already left its result."""
    folder = storage.run_folder_make(run)
    output = folder / "outputs/model"
    output.mkdir(parents=True)
    (output / "config.json").write_text("{}")
    described = {"path": "outputs/model", "kind": "model", "sha256": manifest_write(output)}
    (folder / "result.json").write_text(
        json.dumps({"outputs": {"model": described}, "result": facts})
    )
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    return run


def test_the_end_of_an_import_registers_the_version_with_its_lineage(db, root):
    run = imported(request("smol"), FACTS)
    assert run.status == Run.Status.SUCCEEDED, run.error
    version = ModelVersion.objects.get()
    assert (str(version), version.role, version.run) == ("smol v1", "base", run)
    assert version.artifact == run.outputs.get(role="model").artifact
    assert version.card == "A card."
    assert version.facts == {"source": "directory"}


def test_an_import_whose_facts_describe_no_model_fails_and_says_so(db, root):
    run = imported(request("smol"), {**FACTS, "parameters": None})
    assert run.status == Run.Status.FAILED
    assert "parameters is None" in run.error
    assert not ModelVersion.objects.exists()
    assert not Model.objects.exists()
