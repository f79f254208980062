"""Bringing texts in: formats, places, refusals that name line and byte, nothing half-made."""

import gzip
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.documents import Document, rows_read
from modelhub.ml.corpora.import_corpus import main
from modelhub.ml.corpora.locations import location_sources
from modelhub.ml.corpora.readers import Source, SourceError, source_documents
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.runs import program_finish, program_start, run_write

PROGRAM = "modelhub.ml.corpora.import_corpus"
DATA = Path(__file__).resolve().parents[5] / "shared" / "data"


def read(path: Path, **settings: Any) -> list[Document]:
    config = ImportCorpusConfig(locations=(str(path),), source="test", **settings)
    return [
        document
        for source in location_sources(config.locations)
        for document in source_documents(source, config)
    ]


def texts(path: Path, **settings: Any) -> list[str]:
    return [document.text for document in read(path, **settings)]


def test_a_text_file_is_one_document_or_parts_of_it(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text(
        "Preface\n\n\n第一回 天下\n分久必合\n\n第二回 张翼德\n怒鞭督邮\n", encoding="utf-8"
    )
    assert texts(path) == ["Preface\n\n\n第一回 天下\n分久必合\n\n第二回 张翼德\n怒鞭督邮"]
    assert texts(path, split="blank_lines") == [
        "Preface",
        "第一回 天下\n分久必合",
        "第二回 张翼德\n怒鞭督邮",
    ]
    chapters = read(path, split="pattern", pattern="^第.+回", licence="CC0-1.0", language="zh")
    assert [one.text.splitlines()[0] for one in chapters] == [
        "Preface",
        "第一回 天下",
        "第二回 张翼德",
    ]
    assert chapters[1] == Document(
        id="novel.txt#1",
        text="第一回 天下\n分久必合",
        source="test",
        language="zh",
        licence="CC0-1.0",
    )


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_json_lines_are_read_packed_or_not(tmp_path: Path, ending: str) -> None:
    rows = [
        {"id": "a", "text": "one\u2028line", "license": "MIT", "more": 1},
        {"text": "二", "language": "zh"},
    ]
    raw = ("\ufeff" + "\r\n".join(map(json.dumps, rows))).encode()  # BOM, CRLF, no last line end
    if ending.endswith("gz"):
        raw = gzip.compress(raw)
    elif ending.endswith("zst"):
        raw = pa.Codec("zstd").compress(raw, asbytes=True)
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(raw)
    first, second = read(path)
    assert (first.id, first.text, first.licence) == ("a", "one\u2028line", "MIT")
    assert (second.id, second.text, second.language) == (f"rows.{ending}#2", "二", "zh")


def test_parquet_is_read_by_the_column_that_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a", "b"], "id": [7, 8]}), tmp_path / "rows.parquet")
    found = read(tmp_path, text_field="content")
    assert [(one.id, one.text) for one in found] == [("7", "a"), ("8", "b")]
    with pytest.raises(SourceError, match=r"rows\.parquet: no column 'text'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", b"good line\n\xe4\xb8\xad\xff\n", r"a\.txt, line 2, byte 13: not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xe4\xb8\xad" x}\n', "line 2, byte 29: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"line 2, byte 24: not JSON at column 10: \D*$"),
        ("a.jsonl", b"text,id\nx,1\n", "line 1, byte 0: .*column 1: .*no JSON Lines file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2, byte 24: not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "cut', "line 2, byte 23: not JSON"),
        ("a.jsonl", b'{"text": 3}\n', "line 1, byte 0: field 'text' is 3"),
        ("a.jsonl", b"[1]\n", "line 1, byte 0: expected an object"),
        ("a.jsonl", b'{"text": "x", "text": "y"}\n', "line 1, byte 0: not JSON: the same key"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99, mtime=0)[:-12], "cannot be unpacked"),
        ("a.jsonl.gz", b"no gzip at all", "line 1, byte 0: cannot be unpacked"),
        ("a.parquet", b"PAR1 no more", r"a\.parquet: not a Parquet file"),
        ("a.doc", b"text", "say its format"),
    ],
)
def test_a_bad_file_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=named):
        read(tmp_path)


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path: Path) -> None:
    """300 KB of gzip that unpack to 300 MB of one line."""
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(b"\0" * (1 << 20))
    with pytest.raises(SourceError, match="line 1, byte 0: a line of more than 4000000 bytes"):
        read(path, max_document_characters=1_000_000)


def test_a_document_that_has_no_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("ten words of text that go on and on here\n" * 100)
    with pytest.raises(SourceError, match=r"line 25, byte 984: a document of more than 1000"):
        read(tmp_path, max_document_characters=1000)


def test_links_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "texts"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "notes.txt").write_text("hidden")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "open.txt").write_text("open")
    assert texts(folder) == ["open"]


def test_what_is_neither_file_nor_folder_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        for name, kind in (("pipe.txt", "a pipe"), ("door", "a socket")):
            with pytest.raises(SourceError, match=f"{name} is {kind}: texts are read from .* Save"):
                texts(tmp_path / name)
    with pytest.raises(SourceError, match="null is a device"):
        texts(Path("/dev/null"))


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    path = tmp_path / "open.txt"
    path.write_text("open")
    (source,) = location_sources([str(path)])
    path.unlink()
    path.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RefusedError, match=r"open\.txt is a link"):
        source.open()


def test_a_folder_that_becomes_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("texts", "open"), ("secrets", "secret")):
        (tmp_path / "root" / name / "inner").mkdir(parents=True)
        (tmp_path / "root" / name / "inner" / "a.txt").write_text(text)
    folder = tmp_path / "root" / "texts"
    (source,) = location_sources([str(folder)])
    folder.rename(folder.with_name("before"))
    folder.symlink_to("secrets")
    with pytest.raises(RefusedError, match=r"root/texts is no folder, or a link"):
        source.open()
    assert texts(folder / "inner") == ["secret"]  # by hand: a link is one's own
    monkeypatch.setenv("RONDO_PARENT_PID", "1")  # by a worker
    for location in (folder, folder / "inner", folder / "inner" / "a.txt"):
        with pytest.raises(RefusedError, match="link"):
            location_sources([str(location)])


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://host/x", "local://etc/passwd"])
def test_other_schemes_are_refused(place: str) -> None:
    with pytest.raises(SourceError, match="is read here"):
        location_sources([place])


def test_object_storage_is_read_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the s3 extra is not installed")
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/b.txt", b"second")
    files.pipe("/bucket/a/a.txt", b"first")
    for scheme in ("memory", "Memory"):
        found = location_sources([f"{scheme}://bucket"])
        assert [(one.name, one.open().read()) for one in found] == [
            ("a/a.txt", b"first"),
            ("b.txt", b"second"),
        ]


@pytest.mark.parametrize(
    ("raised", "wanted", "said"),
    [
        (FileNotFoundError("no such bucket"), SourceError, "s3://bucket/x: no such bucket"),
        (PermissionError("Forbidden"), SourceError, "s3://bucket/x: Forbidden"),
        (RuntimeError("no keys"), ConnectionError, "s3://bucket/x cannot be read: no keys"),
    ],
)
def test_a_storage_that_gives_no_files_is_named(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, wanted: type[Exception], said: str
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the s3 extra is not installed")

    class Closed(fsspec.AbstractFileSystem):
        cachable = False

        def info(self, path: str, **_: Any) -> None:
            raise raised

        def isfile(self, path: str) -> bool:
            raise raised

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda address: (Closed(), "bucket/x"))
    with pytest.raises(wanted, match=said):
        location_sources(["s3://bucket/x"])


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of the test's folder."""
    (tmp_path / "web").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_web_addresses_are_read(tmp_path: Path, web: str) -> None:
    (tmp_path / "web" / "rows.jsonl").write_text('{"text": "from afar"}\n')
    config = ImportCorpusConfig(locations=(f"{web}/rows.jsonl",), source="web")
    (source,) = location_sources(config.locations)
    assert [one.text for one in source_documents(source, config)] == ["from afar"]
    (missing,) = location_sources([f"{web}/none.jsonl"])
    with pytest.raises(SourceError, match="404"):
        missing.open()


def test_parquet_is_read_from_an_address_too(tmp_path: Path, web: str) -> None:
    """Its end is read first, and an address cannot be sought in."""
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "web" / "rows.parquet")
    config = ImportCorpusConfig(locations=(f"{web}/rows.parquet",), source="web")
    (source,) = location_sources(config.locations)
    found = list(source_documents(source, config))
    assert [(one.id, one.text) for one in found] == [
        ("rows.parquet#0", "one"),
        ("rows.parquet#1", "two"),
    ]


def test_parquet_from_a_storage_that_breaks_off_is_not_called_damaged() -> None:
    """The run is tried again, where it would end with what is wrong with a file."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("broke off")

    config = ImportCorpusConfig(locations=("s3://bucket/rows.parquet",), source="test")
    source = Source(name="rows.parquet", open=lambda: Broken(b"PAR1" * 100))
    with pytest.raises(ConnectionResetError, match="broke off"):
        list(source_documents(source, config))


class _BreaksOff(BaseHTTPRequestHandler):
    """Says how much it will send, and sends half of it."""

    sent = b'{"text": "x"}\n' * 100

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        whole = gzip.compress(self.sent) if self.path.endswith(".gz") else self.sent
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole[: len(whole) // 2])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.jsonl.gz", "rows.parquet"])
def test_an_address_that_breaks_off_is_not_taken_for_whole(name: str) -> None:
    """Half of the lines are whole ones: nothing else would tell."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _BreaksOff)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{name}"
    config = ImportCorpusConfig(locations=(address,), source="web")
    (source,) = location_sources(config.locations)
    where = "" if name.endswith("parquet") else rf"{name}, line \d+, byte \d+: "
    with pytest.raises(
        ConnectionError, match=rf"^{where}{address} broke off: \d+ bytes are missing"
    ):
        list(source_documents(source, config))
    server.shutdown()
    server.server_close()


def test_a_run_writes_documents_with_their_signals_by_any_number_of_processes(
    tmp_path: Path,
) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    (source / "en.txt").write_text("It was the best of times, it was the worst of times. " * 3)
    (source / "zh.txt").write_text("话说天下大势，分久必合，合久必分。" * 3, encoding="utf-8")
    lines = [json.dumps({"text": f"Document {i} says what it says. "}) for i in range(600)]
    (source / "rows.jsonl").write_text("\n".join(lines))
    config = {"locations": [str(source)], "source": "two", "licence": "CC0-1.0", "workers": 2}
    run = run_write(tmp_path / "run", "import_corpus", config)
    result = program_finish(PROGRAM, run)
    assert result["documents"] == 602
    assert result["words"] == 36 + 600 * 6 + 42
    assert [one["language"] for one in result["languages"]] == ["en", "zh"]
    found = list(rows_read(run / "outputs" / "corpus"))
    english, signals = found[0]
    assert (english.id, english.language, signals["words"]) == ("en.txt", "en", 36)
    assert found[-1][0].language == "zh"

    alone = run_write(tmp_path / "alone", "import_corpus", config | {"workers": 1})
    main(RunDir(alone))
    for path in (run / "outputs" / "corpus").glob("*.parquet"):
        assert path.read_bytes() == (alone / "outputs" / "corpus" / path.name).read_bytes()


def test_nothing_is_made_of_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n{"text": bad}\n')
    config = {"locations": [str(tmp_path / "rows.jsonl")], "source": "s", "workers": 1}
    run = run_write(tmp_path / "run", "import_corpus", config)
    assert program_start(PROGRAM, run).wait(timeout=60) == 2
    assert not (run / "result.json").exists()
    assert "rows.jsonl, line 2, byte 26: not JSON" in (run / "log.txt").read_text()


def test_a_source_without_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n\n \n")
    config = {"locations": [str(tmp_path / "blank.txt")], "source": "s", "workers": 1}
    with pytest.raises(SourceError, match="holds no document"):
        main(RunDir(run_write(tmp_path / "run", "import_corpus", config)))


def test_a_pattern_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"import_corpus\.pattern"):
        ImportCorpusConfig(locations=("x",), source="s", split="pattern", pattern="(")


@pytest.mark.skipif(not DATA.exists(), reason="needs the folder shared/data beside the project")
def test_a_novel_is_cut_into_its_chapters() -> None:
    found = read(DATA / "sanguo.txt.gz", split="pattern", pattern="^第.{1,6}回")
    assert len(found) >= 120


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Four times the documents, held back: never more of them alive than two chunks."""
    alive = most = 0

    class Line(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def lines() -> Iterator[bytes]:
        nonlocal alive, most
        for number in range(400):
            alive += 1
            most = max(most, alive)
            yield Line(b'{"text": "%d"}\n' % number)

    class Stream:
        def __init__(self) -> None:
            self.lines = lines()

        def read(self, _size: int) -> bytes:
            return next(self.lines, b"")

        def close(self) -> None: ...

    config = ImportCorpusConfig(locations=("x",), source="s")
    source = Source(name="x.jsonl", open=Stream)  # type: ignore[arg-type]
    assert sum(1 for _ in source_documents(source, config)) == 400
    assert most < 5
