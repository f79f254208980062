"""RELIABILITY S43, S44: no archive is opened anywhere, and what is packed is bounded as it unpacks.

Rondo takes models as folders, one GGUF file or a hub id, and texts as files of their own, packed
singly by gzip or zstd. So an archive is refused as what it is not, whatever its entries say.
"""

import gzip
import io
import resource
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.services.imports import import_path
from tests import builders


def tar_of(*entries: tarfile.TarInfo, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


def zip_of(*names: str, change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, b"x")
    return buffer.getvalue()


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def lying(whole: bytes, at: bytes, offset: int, value: bytes) -> bytes:
    """The archive with a field changed behind the last record of a kind."""
    place = whole.rindex(at) + offset
    return whole[:place] + value + whole[place + len(value) :]


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "dotdot.tar": lambda: tar_of(entry("../escaped")),
    "absolute.tar": lambda: tar_of(entry("/tmp/escaped")),
    "symlink-then-file.tar": lambda: tar_of(
        entry("door", tarfile.SYMTYPE, ".."), entry("door/escaped")
    ),
    "hardlink-to-symlink.tar": lambda: tar_of(
        entry("door", tarfile.SYMTYPE, "../escaped"), entry("again", tarfile.LNKTYPE, "door")
    ),
    "device.tar": lambda: tar_of(entry("null", tarfile.CHRTYPE)),
    "same-name.tar": lambda: tar_of(entry("config.json"), entry("config.json")),
    "packed.tar.gz": lambda: tar_of(entry("../escaped"), mode="w:gz"),
    "dotdot.zip": lambda: zip_of("../escaped"),
    "absolute.zip": lambda: zip_of("/escaped"),
    "backslash.zip": lambda: zip_of("..\\escaped"),
    "case.zip": lambda: zip_of("config.json", "CONFIG.JSON"),
    "symlink.zip": lambda: zip_of("door", change=link),
    "many.zip": lambda: zip_of(*(f"{number}" for number in range(65_000))),
    "encrypted.zip": lambda: lying(zip_of("a"), b"PK\x01\x02", 8, b"\x01\x00"),
    "size-lies.zip": lambda: lying(zip_of("a"), b"PK\x01\x02", 24, b"\xff\xff\xff\xff"),
    "local-and-central.zip": lambda: lying(zip_of("aa"), b"PK\x01\x02", 46, b"bb"),
}
# What it could be called to be let in.
MODEL_NAMES = ("model.safetensors", "tokenizer.json", "config.json", "README.md", "model.zip")


@pytest.mark.parametrize("archive", sorted(ARCHIVES))
def test_no_archive_is_a_part_of_a_model(tmp_path: Path, archive: str) -> None:
    content = ARCHIVES[archive]()
    for name in MODEL_NAMES:
        folder = tmp_path / "place" / name.partition(".")[0] / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        with pytest.raises(RefusedError):
            model_directory_check(folder)
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped").exists()


@pytest.mark.ml
@pytest.mark.parametrize("archive", sorted(ARCHIVES))
def test_no_archive_is_a_gguf_file(tmp_path: Path, archive: str) -> None:
    from modelhub.ml.import_model import gguf_check

    path = tmp_path / "model.gguf"
    path.write_bytes(ARCHIVES[archive]())
    with pytest.raises(RefusedError):
        gguf_check(path)


@pytest.mark.parametrize("archive", sorted(ARCHIVES))
def test_no_archive_is_a_text_of_a_corpus(tmp_path: Path, archive: str) -> None:
    """By its own name its format is not known; called something else, it does not read as that."""
    pytest.importorskip("rensa", reason="the pretrain extra is not installed")
    from modelhub.ml.corpora.configs import ImportCorpusConfig
    from modelhub.ml.corpora.locations import location_sources
    from modelhub.ml.corpora.readers import source_documents

    content = ARCHIVES[archive]()
    for name in (archive, "rows.jsonl", "rows.parquet", "rows.jsonl.gz"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        config = ImportCorpusConfig(locations=(str(path),), source="x")
        with pytest.raises(RefusedError):
            for source in location_sources(config.locations):
                list(source_documents(source, config))
        path.unlink()
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.django_db
def test_an_archive_is_no_folder_to_import(tmp_path: Path, settings) -> None:
    from modelhub.errors import ApplicationError

    settings.IMPORT_ROOTS = [tmp_path]
    (tmp_path / "model.zip").write_bytes(zip_of("config.json"))
    with pytest.raises(ApplicationError, match="is no folder"):
        import_path("model.zip", wants_folder=True)


@pytest.mark.django_db
@pytest.mark.parametrize("archive", ["dotdot.zip", "packed.tar.gz", "many.zip"])
def test_no_archive_is_an_import_of_prompts(archive: str) -> None:
    project = builders.make_project()
    manager = builders.make_member(project, "dana", "manager")
    client = Client()
    client.force_login(manager.user)
    reply = client.post(
        reverse("api_prompts_import", args=[project.uid]),
        data=ARCHIVES[archive](),
        content_type="application/x-ndjson",
    )
    assert reply.status_code in (400, 413)
    assert not project.prompts.exists()


@pytest.mark.django_db
def test_a_packed_body_is_not_unpacked(staff: Client) -> None:
    """`Content-Encoding: gzip`: 300 MB in 300 KB are no JSON."""
    bomb = gzip.compress(b"[" * (300 << 20), compresslevel=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = staff.post(
        "/api/v1/hub/imports/",
        data=bomb,
        content_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )
    assert reply.status_code in (400, 413)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


MULTIPART = """
import io, resource
import django; django.setup()
from django.test import RequestFactory
from django.core.exceptions import SuspiciousOperation

body = io.BytesIO()
body.write(b'--x\\r\\nContent-Disposition: form-data; name="text"\\r\\n')
body.write(b'Content-Transfer-Encoding: base64\\r\\n\\r\\n')
line = b'QUFB' * 18 + b'\\r\\n'
body.write(line * (({size} << 20) // len(line)))
body.write(b'\\r\\n--x--\\r\\n')
kind = "multipart/form-data; boundary=x"
request = RequestFactory().generic("POST", "/", body.getvalue(), kind)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("text" in request.POST)
except SuspiciousOperation as error:
    print(type(error).__name__, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_multipart_field_of_64_mb_in_base64_is_refused_in_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MULTIPART.format(size=64)],
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": "", "HOME": "/nowhere"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    kind, taken = done.stdout.split()
    assert kind == "RequestDataTooBig"
    assert int(taken) < 64  # MiB


@pytest.mark.ml
def test_questions_that_unpack_to_one_endless_line_are_refused_in_little_memory(
    tmp_path: Path,
) -> None:
    from alignment.ml.import_questions import lines_read

    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(b" " * (1 << 20))
    assert path.stat().st_size < 400 << 10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError, match="line 1: longer than"):
        list(lines_read(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(builders.make_user("eve", is_staff=True))
    return client


def test_the_archives_would_unpack_somewhere() -> None:
    """They are archives: the escapes they hold are there to be read."""
    with tarfile.open(fileobj=io.BytesIO(ARCHIVES["dotdot.tar"]())) as archive:
        assert archive.getnames() == ["../escaped"]
    with zipfile.ZipFile(io.BytesIO(ARCHIVES["many.zip"]())) as archive:
        assert len(archive.namelist()) == 65_000
