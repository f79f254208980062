"""A version to a folder or a hub and back: the same artifact, or a refusal that names the file."""

import base64
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.manifest import manifest_build, manifest_write
from modelhub.models import Artifact, ModelVersion
from modelhub.services.artifacts import artifact_store
from modelhub.services.sharing import version_pull_folder, version_push_folder, version_push_hub
from modelhub.services.versions import model_get_or_create, model_version_register

pytest.importorskip("torch")
pytestmark = [pytest.mark.ml, pytest.mark.django_db]

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 90_624,
    "dtype": "float32",
    "context_tokens": 512,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from tests.tiny_model import tiny_model_write

    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def version(tiny, db) -> ModelVersion:
    return model_version_register(
        model=model_get_or_create(name="tiny"),
        role="policy",
        artifact=artifact_store(folder=tiny, kind="model"),
        parent=None,
        run=None,
        facts=FACTS,
        card="Made for *tests*.",
    )


@pytest.fixture
def pushed(version, tmp_path) -> Path:
    version_push_folder(version=version, target=tmp_path / "out")
    return tmp_path / "out"


def test_there_and_back_is_the_same_artifact(version, pushed, capsys) -> None:
    assert "Made for *tests*." in (pushed / "README.md").read_text()
    assert (pushed / "README.md").read_text().startswith("---\nlibrary_name:")
    call_command("hub_pull", str(pushed), "again")
    again = ModelVersion.objects.get(model__name="again")
    assert again.artifact == version.artifact
    assert again.artifact.sha256 in capsys.readouterr().out
    assert (again.role, again.parameters, again.context_tokens) == ("policy", 90_624, 512)
    assert "<|im_start|>" in again.chat_template
    assert "Made for *tests*." in again.card and "library_name" not in again.card
    storage.artifact_verify(again.artifact)


def test_a_folder_that_is_there_is_left_alone(version, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(CommandError, match="is there already"):
        call_command("hub_push", "tiny@1", str(tmp_path / "mine"))
    assert not list((tmp_path / "mine").iterdir())


def test_a_damaged_artifact_is_not_pushed(version, tmp_path) -> None:
    weights = storage.artifact_folder(version.artifact) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CommandError, match=r"model\.safetensors has changed"):
        call_command("hub_push", "tiny@1", str(tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def unname(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def link(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "elsewhere.json")
    (folder / "config.json").symlink_to(folder.parent / "elsewhere.json")


def climb(folder: Path) -> None:
    manifest = {"files": {"../passwd": {"sha256": "0" * 64, "bytes": 1}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def pickle_in(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "README.md").unlink()
    manifest_write(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "model.safetensors has changed"),
        (lose, "tokenizer.json is missing"),
        (unname, "has no manifest.json"),
        (link, "config.json is missing, or is no plain file"),
        (climb, "lies elsewhere"),
        (pickle_in, "pytorch_model.bin"),
    ],
)
def test_what_is_not_as_pushed_or_more_than_a_model_is_refused(pushed, spoil, said) -> None:
    spoil(pushed)
    with pytest.raises(ApplicationError) as refusal:
        version_pull_folder(folder=pushed, model="again")
    assert said in refusal.value.message
    assert not ModelVersion.objects.filter(model__name="again").exists()
    assert Artifact.objects.count() == 1


def test_a_pickle_beside_the_named_files_is_not_copied(pushed) -> None:
    (pushed / "extra.bin").write_bytes(b"\x80\x04.")
    again = version_pull_folder(folder=pushed, model="again")
    assert not (storage.artifact_folder(again.artifact) / "extra.bin").exists()


def test_words_behind_a_link_are_not_taken_for_its_card(pushed) -> None:
    (pushed.parent / "secret").write_text("root:x:0:0")
    (pushed / "README.md").unlink()
    (pushed / "README.md").symlink_to(pushed.parent / "secret")
    assert version_pull_folder(folder=pushed, model="again").card == ""


def test_what_writes_is_no_reward_model(pushed) -> None:
    with pytest.raises(ApplicationError, match="cannot be a reward model"):
        version_pull_folder(folder=pushed, model="again", role="reward")


class _Hub(BaseHTTPRequestHandler):
    """Takes uploads as a model hub does (a repository, what to send how, one commit), and gives
    back what it has taken."""

    taken: dict[str, bytes]
    asked: list[tuple[str, str]]

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.path == "/api/repos/create":
            url = f"http://{self.headers['Host']}/org/tiny"
            return self._send({"url": url, "id": "org/tiny", "name": "org/tiny"})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            listed = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in files
            ]
            return self._send({"files": listed})
        if "/commit/main" in self.path:
            for line in body.decode().splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    self.taken[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            url = f"http://{self.headers['Host']}/org/tiny/commit/1"
            done = {"commitUrl": url, "commitOid": "1" * 40}
            return self._send({**done, "hookOutput": "", "success": True})
        return self._send({"type": "ok"})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append((path, self.headers.get("Authorization", "")))
        if "/resolve/" in path:
            return self._file(path, send=True)
        if "/tree/" in path:
            sizes = {name: len(data) for name, data in self.taken.items()}
            listed = [
                {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                for name, size in sizes.items()
            ]
            return self._send(listed)
        siblings = [{"rfilename": name} for name in self.taken]
        return self._send({"id": "org/tiny", "sha": "0" * 40, "siblings": siblings})

    def do_HEAD(self) -> None:
        self._file(self.path.partition("?")[0], send=False)

    def _file(self, path: str, *, send: bool) -> None:
        data = self.taken.get(path.partition("/resolve/")[2].partition("/")[2])
        self.send_response(404 if data is None else 200)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if send and data:
            self.wfile.write(data)

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(settings, monkeypatch) -> Iterator[type[_Hub]]:
    _Hub.taken, _Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    settings.MODEL_HUB_ENDPOINT = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield _Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_is_given_every_file_and_the_card(version, hub, tmp_path) -> None:
    where = version_push_hub(version=version, name="org/tiny")
    assert where.endswith("/org/tiny/commit/1")
    assert {key for _, key in hub.asked if key} == {"Bearer hf_secret"}
    for name, data in hub.taken.items():
        path = tmp_path / "taken" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert "README.md" in hub.taken
    (tmp_path / "taken/README.md").rename(tmp_path / "README.md")
    found = manifest_build(tmp_path / "taken")["files"]
    assert found == version.artifact.manifest["files"]
    # What the hub was given is the artifact again.
    assert version_pull_folder(folder=tmp_path / "taken", model="b").artifact == version.artifact


def test_what_a_hub_was_given_comes_back_as_the_same_artifact(version, hub, capsys) -> None:
    version_push_hub(version=version, name="org/tiny")
    hub.taken["pytorch_model.bin"] = b"\x80\x04."
    call_command("hub_pull", "hub:org/tiny", "again")
    again = ModelVersion.objects.get(model__name="again")
    assert again.artifact == version.artifact
    assert "Made for *tests*." in again.card
    assert not any("pytorch_model.bin" in path for path, _ in hub.asked if "resolve" in path)
    assert not list(Path(settings.DATA_DIR).glob("tmp*"))


def test_a_hubs_model_that_was_not_pushed_or_is_damaged_is_refused(version, hub) -> None:
    with pytest.raises(
        CommandError, match=r"org/tiny has no manifest\.json: it is a model of others"
    ):
        call_command("hub_pull", "hub:org/tiny", "again")
    version_push_hub(version=version, name="org/tiny")
    hub.taken["config.json"] += b" "
    with pytest.raises(CommandError, match=r"org/tiny cannot be pulled: config\.json has changed"):
        call_command("hub_pull", "hub:org/tiny", "again")
    with pytest.raises(CommandError, match="is no hub id"):
        call_command("hub_pull", "hub:../etc", "again")
    assert not ModelVersion.objects.filter(model__name="again").exists()


def test_a_hub_out_of_reach_is_not_said_to_have_no_manifest(db, hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CommandError, match=f"^{settings.MODEL_HUB_ENDPOINT} did not give it: .*connection"
    ):
        call_command("hub_pull", "hub:org/tiny", "again")
