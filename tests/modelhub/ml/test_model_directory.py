"""Only what reads as a model is one: pickles, code, links and broken weights are refused."""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from modelhub.ml import model_directory
from modelhub.ml.checkpoint import model_load
from modelhub.ml.import_model import directory_copy
from modelhub.ml.model_directory import ARCHITECTURES, model_directory_check
from modelhub.ml.safetensors_file import ModelDirectoryError, safetensors_header
from tests.tiny_model import CHAT_TEMPLATE, tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A fresh copy to harm."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_a_sound_directory_says_what_it_is(tiny):
    facts = model_directory_check(tiny)
    assert (facts.architecture, facts.role) == ("LlamaForCausalLM", "causal")
    assert (facts.dtype, facts.context_tokens) == ("float32", 512)
    assert facts.chat_template == CHAT_TEMPLATE
    # Embedding 259·64; a layer: 64·64 + 2·32·64 + 64·64 + 3·64·128 + 2·64; twice; the last norm.
    assert facts.parameters == 259 * 64 + 2 * (12_288 + 24_576 + 128) + 64
    assert set(facts.files) == {path.name for path in tiny.iterdir()}


def test_the_table_of_architectures_is_transformers_own():
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    for family, (causal, reward) in ARCHITECTURES.items():
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family] == causal
        assert MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[family] == reward


# Case S47: a pickle that leaves a mark, under every name and wrapping.


class _Marks:
    """Pickles to a call that creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def _pickle(marker: Path) -> bytes:
    return pickle.dumps(_Marks(marker))


def _npy(marker: Path) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + _pickle(marker)


def _zip(marker: Path, name: str = "archive/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, _pickle(marker))
    return buffer.getvalue()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pytorch_model.bin": _pickle,
    "model.pt": _zip,
    "model.pth": _pickle,
    "model.ckpt": _pickle,
    "weights.pkl": _pickle,
    "weights.joblib": _pickle,
    "weights.npy": _npy,
    "weights.npz": lambda marker: _zip(marker, "weights.npy"),
    "training_args.bin": _pickle,
    "model.safetensors": _pickle,  # the weights themselves, renamed
    "model-00001-of-00001.safetensors": _pickle,
    "model.pkl.gz": lambda marker: gzip.compress(_pickle(marker)),
    "model.zip": _zip,
    "tokenizer/vocab.pkl": _pickle,
    "tokenizer.json": _pickle,
    "README.md": _pickle,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_pickle_is_refused_whatever_it_is_called(name, model, tmp_path):
    marker = tmp_path / "marker"
    payload = HOSTILE[name](marker)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(payload)
    out = tmp_path / "out"
    out.mkdir()
    for attempt in (
        lambda: model_directory_check(model),
        lambda: directory_copy(model, out),
        lambda: model_load(model, dtype="float32"),
        lambda: model_load(model, dtype="float32", role="reward", new_head=True),
    ):
        with pytest.raises(ModelDirectoryError) as refused:
            attempt()
        assert name.split("/")[0] in str(refused.value)
    assert list(out.iterdir()) == []
    assert not marker.exists()


def test_the_payload_is_live(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(_pickle(marker)).close()
    assert marker.exists()


def test_pickles_without_any_weights_are_refused_too(model, tmp_path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelDirectoryError, match="weights are taken as safetensors"):
        model_directory_check(model)


# Code, links and other things that are not a model.


def test_code_is_refused(model):
    (model / "modeling_custom.py").write_text("print('hello')")
    with pytest.raises(ModelDirectoryError, match=r"modeling_custom\.py: code"):
        model_directory_check(model)


def test_an_unknown_file_is_refused(model):
    (model / "notes.docx").write_bytes(b"PK")
    with pytest.raises(ModelDirectoryError, match=r"notes\.docx: not a file that Rondo knows"):
        model_directory_check(model)


def test_a_link_is_refused(model, tmp_path):
    (tmp_path / "elsewhere.json").write_text("{}")
    (model / "generation_config.json").unlink()
    (model / "generation_config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelDirectoryError, match=r"generation_config\.json: a link"):
        model_directory_check(model)


def test_a_pipe_is_refused_and_not_read(model):
    os.mkfifo(model / "README.md")
    with pytest.raises(ModelDirectoryError, match="not a plain file"):
        model_directory_check(model)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelDirectoryError, match="nowhere is not a folder"):
        model_directory_check(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(ModelDirectoryError, match=f"{name}: missing"):
        model_directory_check(model)


def test_what_travels_with_a_model_is_read_and_left_behind(model, tmp_path):
    (model / "README.md").write_text("# A model ☃")
    (model / "merges.txt").write_text("#version: 0.2\na b\n")
    (model / "vocab.json").write_text("{}")
    (tmp_path / "out").mkdir()
    directory_copy(model, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in names and not names & {"README.md", "merges.txt", "vocab.json"}
    assert (tmp_path / "out" / "config.json").stat().st_mode & 0o777 == 0o640


def _change(path: Path, values: dict[str, Any]) -> None:
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**settings, **values}))


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("config.json", {"auto_map": {"AutoModel": "x--y.Z"}}, "auto_map asks for code"),
        ("config.json", {"attn_implementation": "org/kernel"}, "asks for code"),
        ("config.json", {"text_config": [{"auto_map": {"A": "b.C"}}]}, "auto_map asks for code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "asks for code"),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "outside the folder"),
        ("tokenizer_config.json", {"tokenizer_class": "os.system('x')"}, "tokenizer_class"),
        ("generation_config.json", {"custom_generate": "org/name"}, "asks for code"),
        ("config.json", {"quantization_config": {"bits": 4}}, "quantised weights"),
        ("config.json", {"model_type": "bert"}, "model_type 'bert' is not known"),
        ("config.json", {"model_type": ["llama"]}, "is not known"),
        ("config.json", {"architectures": ["BertModel"]}, "is neither"),
        ("config.json", {"num_hidden_layers": 10**12}, "num_hidden_layers: wanted 1 to"),
        ("config.json", {"hidden_size": -1}, "hidden_size: wanted 1 to"),
        ("config.json", {"max_position_embeddings": None}, "wanted the context in tokens"),
        ("tokenizer.json", {"model": {"type": "Pickle"}}, "no model of a known type"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": "b"}}}, "vocabulary"),
        ("tokenizer.json", {"added_tokens": [{"id": "1"}]}, "added tokens"),
    ],
)
def test_settings_that_will_not_do_are_named(model, name, values, reason):
    _change(model / name, values)
    with pytest.raises(ModelDirectoryError, match=reason) as refused:
        model_directory_check(model)
    assert refused.value.file == name


def test_ordinary_implementations_are_no_code(model):
    _change(model / "config.json", {"attn_implementation": "sdpa", "trust_remote_code": False})
    model_directory_check(model)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ('{"model_type": "llama", "model_type": "llama"}', "the same key twice"),
        ("[" * 100_000, "not JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[]", "not a JSON object"),
        (" " * (5 << 20), "larger than 4 MiB"),
    ],
    ids=["torn", "twice", "deep", "nan", "list", "huge"],
)
def test_a_config_that_is_no_sound_json_is_refused(model, text, reason):
    (model / "config.json").write_text(text)
    with pytest.raises(ModelDirectoryError, match=reason):
        model_directory_check(model)


def test_a_template_of_a_million_letters_is_refused(model):
    (model / "chat_template.jinja").write_text("x" * 1_000_000)
    with pytest.raises(ModelDirectoryError, match="chat_template"):
        model_directory_check(model)


# Case S52: what a safetensors file can lie about.


def _safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> Any:
    return {"dtype": dtype, "shape": shape or [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ({"a": _entry(0, 8), "b": _entry(4, 12)}, 12, "b overlaps another tensor"),
        ({"a": _entry(0, 8), "b": _entry(0, 8)}, 8, "b overlaps another tensor"),
        ({"a": _entry(0, 8), "b": _entry(12, 16)}, 16, "b leaves bytes unaccounted for"),
        ({"a": _entry(0, 8)}, 4, "4 bytes are missing"),
        ({"a": _entry(0, 8)}, 12, "4 bytes too many"),
        ({"a": _entry(0, 8, [3])}, 8, r"\[3\] of F32 is not 8 bytes"),
        ({"a": _entry(0, 8, [2**40, 2**40])}, 8, "is not 8 bytes"),
        ({"a": _entry(0, 8, [2**70])}, 8, "is not taken"),
        ({"a": _entry(0, 0, [0])}, 0, "holds no number"),
        ({"a": _entry(0, 8, [-2])}, 8, "is not taken"),
        ({"a": _entry(0, 8, [True])}, 8, "is not 8 bytes|is not taken"),
        ({"a": _entry(0, 8, dtype="F8_E4M3")}, 8, "dtype 'F8_E4M3' is not taken"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "wanted dtype, shape and data_offsets"),
        ({"a": {**_entry(0, 8), "more": 1}}, 8, "wanted dtype, shape and data_offsets"),
        ({"a": _entry(8, 0, [2])}, 8, "is not -8 bytes"),
        ({"__metadata__": {"format": 1}, "a": _entry(0, 8)}, 8, "__metadata__"),
        ({}, 0, "holds 0 tensors"),
        (b'{"a": 1, "a": 2}', 0, "the same key twice"),
        (b"[]", 0, "not a safetensors file"),
        (b"{" + b" " * 40, 0, "not a safetensors file"),
        (
            json.dumps({f"t{i}": _entry(4 * i, 4 * i + 4) for i in range(200_001)}).encode(),
            4 * 200_001,
            "holds 200,001 tensors",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_does_not_account_for_the_file_is_refused(tmp_path, header, size, reason):
    path = _safetensors(tmp_path / "model.safetensors", header, b"\0" * size)
    with pytest.raises(ModelDirectoryError, match=reason):
        safetensors_header(path)


def test_a_header_said_to_be_huge_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(ModelDirectoryError, match="said to be 1,099,511,627,776 bytes long"):
        safetensors_header(path)


def test_a_file_cut_off_in_its_header_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1000) + b'{"a": ')
    with pytest.raises(ModelDirectoryError, match="cut off inside its header"):
        safetensors_header(path)


# Weights in several files.


@pytest.fixture
def sharded(model: Path) -> Path:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / shard)
        placed |= dict.fromkeys(part, shard)
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": placed})
    )
    return model


def _weight_map(sharded: Path, change: Callable[[dict[str, str]], Any]) -> None:
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_weights_in_several_files_are_a_model(sharded):
    assert model_directory_check(sharded).parameters == 90_624
    assert model_load(sharded, dtype="float32").config.model_type == "llama"


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelDirectoryError, match=r"model-00002-of-00002\.safetensors: missing"):
        model_directory_check(sharded)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("../model-00001-of-00002.safetensors", "not a weight file's name"),
        ("/etc/passwd", "not a weight file's name"),
        (7, "not a weight file's name"),
        ("model-00001-of-00002.safetensors", "is not placed here"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(sharded, where, reason):
    _weight_map(sharded, lambda placed: placed.update({"model.norm.weight": where}))
    with pytest.raises(ModelDirectoryError, match=reason):
        model_directory_check(sharded)


def test_a_weight_that_the_index_names_and_no_file_has_is_refused(sharded):
    name = "model-00001-of-00002.safetensors"
    _weight_map(sharded, lambda placed: placed.update({"ghost": name}))
    with pytest.raises(ModelDirectoryError, match="ghost is missing"):
        model_directory_check(sharded)


def test_a_weight_that_the_index_leaves_out_is_refused(sharded):
    _weight_map(sharded, lambda placed: placed.pop("model.norm.weight"))
    with pytest.raises(ModelDirectoryError, match=r"model\.norm\.weight is not placed here"):
        model_directory_check(sharded)


def test_two_sets_of_weights_are_refused(sharded, tiny):
    shutil.copy(tiny / "model.safetensors", sharded)
    with pytest.raises(ModelDirectoryError, match="which are the weights"):
        model_directory_check(sharded)


# The guard removed: what the tests above would miss without it.


def test_without_the_check_of_names_a_pickle_would_pass(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model_directory, "_name_check", lambda name, known: None)
    (model / "pytorch_model.bin").write_bytes(_pickle(tmp_path / "marker"))
    assert "pytorch_model.bin" in model_directory_check(model).files
