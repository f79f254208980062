"""`manage.py verify` finds damage anywhere in the store, and says which file."""

import pytest
from django.core.management import CommandError, call_command

from modelhub import storage
from modelhub.models import Artifact
from modelhub.services.artifacts import artifact_store
from modelhub.services.versions import alias_move, model_get_or_create, model_version_register

FACTS = {"architecture": "Llama", "parameters": 1, "dtype": "float32", "context_tokens": 8}


@pytest.fixture
def version(db, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    artifact_store(folder=tmp_path / "one", kind=Artifact.Kind.MODEL)
    model = model_get_or_create(name="smol")
    version = model_version_register(
        model=model,
        role="base",
        artifact=artifact_store(folder=tmp_path / "two", kind=Artifact.Kind.MODEL),
        parent=None,
        run=None,
        facts=FACTS,
    )
    alias_move(model=model, name="champion", version=version, actor=None, reason="")
    return version


@pytest.mark.parametrize("arguments", [[], ["smol@1"], ["smol@champion"]])
def test_an_untouched_hub_verifies(version, capsys, arguments):
    call_command("verify", *arguments)
    assert capsys.readouterr().out == "Everything is as it was.\n"


def test_damage_is_named_and_the_command_fails(version, capsys):
    path = storage.artifact_folder(version.artifact) / "model.safetensors"
    path.write_text("tow")
    for arguments in ([], ["smol@1"]):
        with pytest.raises(CommandError, match=r"1 difference\(s\) found"):
            call_command("verify", *arguments)
        assert "model.safetensors has changed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["smol", "smol@2", "smol@", "@1", "other@1", "smol@99999999999"])
def test_an_unknown_version_is_said_to_be_unknown(version, name):
    with pytest.raises(CommandError, match="There is no version"):
        call_command("verify", name)


def test_a_damaged_token_set_is_named_with_its_bytes(db, tmp_path, capsys):
    np = pytest.importorskip("numpy", reason="NumPy is not installed")
    from modelhub.ml.tokenising.writer import SUM_BLOCK_BYTES, TokenFileWriter

    folder = tmp_path / "tokens"
    folder.mkdir()
    writer = TokenFileWriter(folder / "00000.ds", dtype=np.uint16, tokenizer="t")
    writer.add(np.zeros(SUM_BLOCK_BYTES, np.uint32), np.array([SUM_BLOCK_BYTES]), [("a", "s")])
    writer.close()
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.TOKENS)
    call_command("verify")
    with (storage.artifact_folder(artifact) / "00000.ds").open("r+b") as file:
        file.seek(SUM_BLOCK_BYTES + 5)
        file.write(b"x")
    with pytest.raises(CommandError, match=r"1 difference\(s\) found"):
        call_command("verify")
    assert "between bytes 1048576 and 2097151" in capsys.readouterr().err
