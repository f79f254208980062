"""The content-addressed store: whole or not at all, and every change to it is found and named."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.manifest import MANIFEST_NAME, IntegrityError
from modelhub.ml.records import json_canonical
from modelhub.models import Artifact, Run
from modelhub.services.artifacts import artifact_store, artifacts_scrub

PAGE = 4096


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Two shards of the same size and a small file below a folder."""
    folder = tmp_path / "weights"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model-1.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "model-2.safetensors").write_bytes(bytes(reversed(range(256))) * 64)
    (folder / "tokenizer/vocab.json").write_text("{}")
    return folder


@pytest.fixture
def stored(db: None, weights: Path) -> Artifact:
    return artifact_store(folder=weights, kind=Artifact.Kind.MODEL)


def test_the_same_files_again_are_the_same_artifact(stored, weights, tmp_path):
    again = tmp_path / "elsewhere"
    again.mkdir()
    for path in sorted(weights.rglob("*"), reverse=True):
        if path.is_file():
            target = again / path.relative_to(weights)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert artifact_store(folder=again, kind=Artifact.Kind.MODEL) == stored
    assert [path.name for path in settings.ARTIFACTS_DIR.glob("[!.]*")] == [stored.sha256]
    assert not list(settings.ARTIFACTS_DIR.glob(".tmp-*"))


def test_an_artifact_says_its_size_and_files(stored):
    assert stored.size_bytes == 256 * 64 * 2 + 2
    assert sorted(stored.manifest["files"]) == [
        "model-1.safetensors",
        "model-2.safetensors",
        "tokenizer/vocab.json",
    ]
    assert stored.uri == f"local:{stored.sha256}"


def test_folders_are_0700_and_files_0600(stored):
    folder = storage.artifact_folder(stored)
    for path in [settings.ARTIFACTS_DIR, folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def truncate(folder: Path) -> None:
    os.truncate(folder / "model-1.safetensors", 5000)


def flip_a_bit(folder: Path) -> None:
    path = folder / "model-1.safetensors"
    data = bytearray(path.read_bytes())
    data[9000] ^= 1
    path.write_bytes(data)


def zero_a_page(folder: Path) -> None:
    path = folder / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:-PAGE] + bytes(PAGE))


def swap_shards(folder: Path) -> None:
    one, two = folder / "model-1.safetensors", folder / "model-2.safetensors"
    aside = folder.parent / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def edit_the_manifest(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(path.read_text().replace('"bytes":2', '"bytes":3'))


def delete_a_shard(folder: Path) -> None:
    (folder / "model-1.safetensors").unlink()


def put_an_older_file_back(folder: Path) -> None:
    path = folder / "model-1.safetensors"
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def add_a_file(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("print()")


def put_a_link(folder: Path) -> None:
    delete_a_shard(folder)
    (folder / "model-1.safetensors").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (truncate, "model-1.safetensors has changed"),
        (flip_a_bit, "model-1.safetensors has changed"),
        (zero_a_page, "model-1.safetensors has changed"),
        (swap_shards, "model-1.safetensors has changed"),
        (edit_the_manifest, "manifest.json is not the one"),
        (delete_a_shard, "model-1.safetensors is missing"),
        (put_an_older_file_back, "model-1.safetensors has changed"),
        (add_a_file, "modeling_evil.py is not in the manifest"),
        (put_a_link, "model-1.safetensors is not a plain file"),
    ],
)
def test_damage_is_found_and_named(stored, tamper: Callable[[Path], None], named: str):
    storage.artifact_verify(stored)
    tamper(storage.artifact_folder(stored))
    with pytest.raises(IntegrityError, match=named):
        storage.artifact_verify(stored)


@pytest.mark.parametrize(
    "tamper",
    [
        truncate,
        flip_a_bit,
        zero_a_page,
        swap_shards,
        edit_the_manifest,
        delete_a_shard,
        put_an_older_file_back,
    ],
)
def test_the_scrub_finds_what_has_changed_and_keeps_it(stored, tamper, caplog):
    """Case D26: by itself, within a day, without anybody asking."""
    assert artifacts_scrub(seconds=20) == 1
    stored.refresh_from_db()
    assert stored.damage == "" and stored.verified_at is not None
    tamper(storage.artifact_folder(stored))
    assert artifacts_scrub(seconds=20) == 0  # it has been looked at today
    Artifact.objects.update(verified_at=timezone.now() - timedelta(days=1))
    assert artifacts_scrub(seconds=20) == 1
    stored.refresh_from_db()
    assert "model-1.safetensors" in stored.damage or "manifest.json" in stored.damage
    assert "is damaged" in caplog.text


def test_the_scrub_takes_up_where_it_left_off(stored, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        artifact_store(folder=tmp_path / name, kind=Artifact.Kind.PROMPTS)
    assert [artifacts_scrub(seconds=-1) for _ in range(5)] == [1, 1, 1, 1, 0]
    assert not Artifact.objects.filter(verified_at=None).exists()


def test_what_one_scrub_has_taken_no_other_hashes(stored, tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/b.txt").write_text("b")
    artifact_store(folder=tmp_path / "b", kind=Artifact.Kind.PROMPTS)
    verify = storage.artifact_verify
    others = []

    def meanwhile(artifact: Artifact) -> None:
        monkeypatch.setattr(storage, "artifact_verify", verify)
        others.append(artifacts_scrub(seconds=20))
        verify(artifact)

    monkeypatch.setattr(storage, "artifact_verify", meanwhile)
    assert artifacts_scrub(seconds=20) == 1
    assert others == [1]


def test_what_is_deleted_while_it_is_hashed_is_not_damaged(stored, monkeypatch, caplog):
    verify = storage.artifact_verify

    def meanwhile(artifact: Artifact) -> None:
        Artifact.objects.all().delete()
        delete_a_shard(storage.artifact_folder(artifact))
        verify(artifact)

    monkeypatch.setattr(storage, "artifact_verify", meanwhile)
    artifacts_scrub(seconds=20)
    assert "is damaged" not in caplog.text


def test_damage_is_forgotten_when_it_has_been_repaired(stored, weights):
    flip_a_bit(storage.artifact_folder(stored))
    artifacts_scrub(seconds=20)
    damaged = Artifact.objects.get()
    assert damaged.damage
    artifact_store(folder=weights, kind=Artifact.Kind.MODEL)
    stored.refresh_from_db()
    assert stored.damage == "" and stored.verified_at > damaged.verified_at
    Artifact.objects.update(damage="a file has changed")
    call_command("verify")
    stored.refresh_from_db()
    assert stored.damage == ""


def test_a_manifest_changed_in_the_database_is_found(stored):
    stored.manifest["files"]["model-1.safetensors"]["bytes"] = 1
    with pytest.raises(IntegrityError, match="the manifest in the database has changed"):
        storage.artifact_verify(stored)


def test_damaged_content_is_replaced_when_the_good_files_come_again(stored, weights):
    flip_a_bit(storage.artifact_folder(stored))
    assert artifact_store(folder=weights, kind=Artifact.Kind.MODEL) == stored
    storage.artifact_verify(stored)


def test_a_copy_does_not_follow_later_changes_of_its_source(stored, weights):
    flip_a_bit(weights)
    storage.artifact_verify(stored)


@pytest.mark.parametrize("target", ["/etc/passwd", "model-2.safetensors", "nowhere"])
def test_links_are_not_stored(db, weights, target):
    (weights / "link").symlink_to(target)
    with pytest.raises(ApplicationError, match="link is not a plain file"):
        artifact_store(folder=weights, kind=Artifact.Kind.MODEL)
    assert not Artifact.objects.exists()
    assert list(settings.ARTIFACTS_DIR.iterdir()) == []


def test_an_empty_folder_is_no_artifact(db, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ApplicationError, match="holds no files"):
        artifact_store(folder=tmp_path / "empty", kind=Artifact.Kind.MODEL)


def test_content_keeps_the_kind_it_came_with(stored, weights):
    with pytest.raises(ConflictError, match="already stored as model"):
        artifact_store(folder=weights, kind=Artifact.Kind.PROMPTS)
    with pytest.raises(ApplicationError, match="no artifact kind 'pickle'"):
        artifact_store(folder=weights, kind="pickle")


@pytest.mark.parametrize(
    "uri", ["local:../../etc", "local:", "/etc", "s3:abc", "local:" + "0" * 64]
)
def test_an_unknown_address_opens_nothing(stored, uri):
    stored.uri = uri
    with pytest.raises(IntegrityError, match="unknown address"):
        storage.artifact_folder(stored)


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import django; django.setup()
from django.conf import settings
from modelhub import storage
settings.ARTIFACTS_DIR = Path(sys.argv[1])
try:
    storage.content_put(folder=Path(sys.argv[2]))
except OSError as error:
    print(error.strerror)
"""


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path):
    """RLIMIT_FSIZE stands for a full disk: the write fails half-way."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 20
    folder, store = tmp_path / "large", tmp_path / "store"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(2 << 20))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store), str(folder)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "File too large"
    assert list(store.iterdir()) == []


def test_content_that_cannot_be_synced_is_not_published(db, weights, monkeypatch):
    def fsync(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        artifact_store(folder=weights, kind=Artifact.Kind.MODEL)
    assert list(settings.ARTIFACTS_DIR.iterdir()) == []
    assert not Artifact.objects.exists()


def test_what_killed_writers_left_is_swept_and_what_is_being_written_is_not(stored):
    old, young = settings.ARTIFACTS_DIR / ".tmp-old", settings.ARTIFACTS_DIR / ".tmp-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    os.utime(old, (0, 0))
    assert storage.orphans_sweep() == 1
    assert not old.exists()
    assert young.exists()
    storage.artifact_verify(stored)


def test_the_end_of_a_log_is_text_that_a_page_can_show(db):
    run = Run.objects.create(program="counting", config={})
    assert storage.run_log_tail(run) == ""
    log = storage.run_folder_make(run) / storage.LOG_NAME
    log.write_bytes(b"first\n 10%\r 50%\r100%\n\x1b[31mred\x1b[0m \xff\x00 \xe2\x82\xac\n")
    assert storage.run_log_tail(run) == "first\n100%\n[31mred[0m � €\n"
    log.write_bytes(b"line of text\n" * 1000)
    tail = storage.run_log_tail(run, max_bytes=100)
    assert tail == "line of text\n" * 7


def test_canonical_json_is_what_names_an_artifact(stored):
    """sha256 of the canonical manifest, worked out by hand here."""
    import hashlib

    text = json_canonical(stored.manifest)
    assert hashlib.sha256(text.encode()).hexdigest() == stored.sha256
