"""RELIABILITY S44, S46: files meant to fill memory or disk, and files that are half of something.

Sizes run: a line of 2 GB (sparse); 2 M tiny lines of the 10 M, one bad line behind 5,000 of the
1 M, for the suite's time; bombs of 390 MB in gzip and zstd. Memory is that of a process of its own.
At the whole sizes (five minutes of the processor):
    CORPUS_EXTREMES=whole python -m pytest tests/modelhub/ml/corpora/test_import_extremes.py
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import pyarrow as pa

from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.import_corpus import main
from modelhub.ml.corpora.locations import location_sources
from modelhub.ml.corpora.readers import SourceError, source_documents
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.runs import run_write

MOST_GROWN_MB = 256
IS_WHOLE = os.environ.get("CORPUS_EXTREMES") == "whole"
TINY_DOCUMENTS = 1_000 if IS_WHOLE else 200  # of 10,000 lines
GOOD_LINES = 1_000_000 if IS_WHOLE else 5_000
READ = """
import resource, sys
from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.locations import location_sources
from modelhub.ml.corpora.readers import SourceError, source_documents
import pyarrow.parquet

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

config = ImportCorpusConfig(locations=(sys.argv[1],), source="test", split="blank_lines")
before, count, said = peak(), 0, ""
try:
    for source in location_sources(config.locations):
        for document in source_documents(source, config):
            count += 1
except SourceError as error:
    said = str(error)
print(peak() - before, count, said, sep="|")
"""


def read_apart(path: Path) -> tuple[int, int, str]:
    """(MB that the process grew by, documents read, what refused the file)."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    grown, count, said = done.stdout.strip().split("|", 2)
    return int(grown), int(count), said


def test_a_line_of_2_gb_is_refused_at_its_byte_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"text": "good"}\n')
    os.truncate(path, 2 << 30)  # sparse: the rest is one line of NUL
    grown, count, said = read_apart(path)
    assert said == "long.jsonl, line 2, byte 17: a line of more than 40000000 bytes"
    assert (count, grown < MOST_GROWN_MB) == (1, True), grown


def test_millions_of_tiny_lines_are_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "tiny.txt"
    with path.open("wb") as file:
        for _ in range(TINY_DOCUMENTS):
            file.write(b"a\n" * 9_999 + b"\n")
    grown, count, said = read_apart(path)
    assert (count, said, grown < MOST_GROWN_MB) == (TINY_DOCUMENTS, "", True), grown


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_bomb_of_lines_that_are_all_right_is_refused(tmp_path: Path, ending: str) -> None:
    """No line is too long: what gives it away is how much comes of how little."""
    path = tmp_path / f"bomb.jsonl.{ending}"
    block = (b'{"text": "' + b"a" * 32_000 + b'"}\n') * 400  # 13 MB
    if ending == "gz":
        path.write_bytes(gzip.compress(block, 9) * 30)
    else:
        path.write_bytes(pa.Codec("zstd").compress(block, asbytes=True) * 30)
    config = ImportCorpusConfig(locations=(str(path),), source="test")
    (source,) = location_sources(config.locations)
    said = r"bomb\.jsonl\.\w+, line \d+, byte \d+: unpacks to more than 200 times its size"
    with pytest.raises(SourceError, match=said):
        for number, _ in enumerate(source_documents(source, config)):
            assert number < 3000  # of 12,000: it is refused at 64 MiB


def test_ends_of_every_kind_are_ends_and_a_mark_amid_the_file_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("一\r\n二\n\r\n\n\ufeff三\r四\r\n".encode())
    config = ImportCorpusConfig(locations=(str(tmp_path),), source="test", split="blank_lines")
    (source,) = location_sources(config.locations)
    assert [one.text for one in source_documents(source, config)] == ["一\n二", "\ufeff三\r四"]
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\r\n\n\xef\xbb\xbf{"text": "y"}\n')
    (source,) = location_sources(config.locations)
    with pytest.raises(SourceError, match=r"a\.jsonl, line 3, byte 16: not JSON"):
        list(source_documents(source, config))


@pytest.mark.parametrize(
    ("content", "byte", "said"),
    [
        ('{"text": "café"}\n'.encode("latin-1"), 13, "not UTF-8"),
        (b'{"text": "cut o', 9, "not JSON"),
        (b'{"text": 1}\n', 0, "field"),
    ],
)
def test_one_bad_line_behind_many_good_ones_leaves_nothing(
    tmp_path: Path, content: bytes, byte: int, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    good = b'{"text": "a"}\n'
    path.write_bytes(good * GOOD_LINES + content)
    named = f"line {GOOD_LINES + 1}, byte {len(good) * GOOD_LINES + byte}: {said}"
    settings = {"locations": [str(path)], "source": "test", "workers": 1}
    run = run_write(tmp_path / "run", "import_corpus", settings)
    with pytest.raises(SourceError, match=named):
        main(RunDir(run))
    assert not (run / "result.json").exists()
    assert not list((run / "outputs").rglob("manifest.json"))
    assert json.loads((run / "config.json").read_text())["program"] == "import_corpus"
