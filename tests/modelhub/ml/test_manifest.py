"""Hashes of single tensors: what they tell, and that an artifact's name does not hang on them."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from modelhub.ml.manifest import (
    IntegrityError,
    manifest_sha256,
    manifest_tensors,
    manifest_verify,
    manifest_write,
)
from modelhub.ml.rundir import RunDir
from modelhub.ml.tensors import tensors_hash


def safetensors_write(path: Path, tensors: dict[str, list[float]], **metadata: str) -> None:
    """A float32 file, by the format's own description."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for name, values in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def folder_of(path: Path, tensors: dict[str, list[float]], **metadata: str) -> Path:
    path.mkdir()
    safetensors_write(path / "model.safetensors", tensors, **metadata)
    return path


def test_a_tensors_hash_is_of_its_bytes(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "m", {"a": [1.0], "b": [2.0, 3.0]}) / "model.safetensors"
    assert tensors_hash(path)["b"] == {
        "sha256": hashlib.sha256(struct.pack("<2f", 2.0, 3.0)).hexdigest(),
        "dtype": "F32",
        "shape": [2],
        "bytes": 8,
    }


def test_torch_writes_what_is_hashed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import save_file

    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    save_file({"w": tensor, "empty": torch.zeros(0)}, tmp_path / "x.safetensors")
    found = tensors_hash(tmp_path / "x.safetensors")
    raw = tensor.view(torch.int16).numpy().tobytes()
    assert found["w"]["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (found["w"]["dtype"], found["w"]["shape"]) == ("BF16", [2, 3])
    assert found["empty"]["bytes"] == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 5) + b"{nope",
        struct.pack("<Q", 60) + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}',
        struct.pack("<Q", 64) + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [-99, 36]}}',
    ],
)
def test_of_a_file_that_is_none_nothing_is_hashed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert tensors_hash(tmp_path / "x.safetensors") == {}


def test_the_name_is_the_files_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", {"a": [1.0]})
    name = manifest_write(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["tensors"]["model.safetensors"]) == ["a"]
    files = {"files": manifest["files"]}
    assert name == manifest_sha256(files) == manifest_sha256(manifest)
    manifest_verify(folder, name)
    # As it was stored before tensors were hashed: verified, and hashed when it is asked for.
    (folder / "manifest.json").write_text(json.dumps(files))
    manifest_verify(folder, name)
    assert manifest_tensors(folder) == manifest["tensors"]["model.safetensors"]


def test_a_checkpoints_tensors_are_not_read_once_more(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    run = RunDir(tmp_path)
    path = run.checkpoint_publish(
        1, lambda folder: safetensors_write(folder / "weights.safetensors", {"a": [1.0]})
    )
    assert list(json.loads((path / "manifest.json").read_text())) == ["files"]
    assert run.checkpoint_latest() == (1, path)


def test_damage_names_the_tensor(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", {"a": [1.0], "b": [2.0], "c": [3.0]}, by="one")
    manifest_write(folder)
    safetensors_write(folder / "model.safetensors", {"a": [1.0], "b": [2.5], "c": [3.5]}, by="one")
    with pytest.raises(IntegrityError, match=r"model\.safetensors has .*\(tensor b and 1 more\)"):
        manifest_verify(folder)
    safetensors_write(folder / "model.safetensors", {"a": [1.0], "b": [2.0], "c": [3.0]}, by="two")
    with pytest.raises(IntegrityError, match="every tensor is as it was"):
        manifest_verify(folder)


def test_verifying_gives_signs_of_life_within_a_file(tmp_path: Path) -> None:
    """A file of half a terabyte takes longer than a watchdog waits."""
    (tmp_path / "tokens.ds").write_bytes(bytes(5 << 20))
    name = manifest_write(tmp_path)
    beats: list[None] = []
    manifest_verify(tmp_path, name, lambda: beats.append(None))
    assert len(beats) >= 5
