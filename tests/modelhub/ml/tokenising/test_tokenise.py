"""Token sets: datatrove's bytes, resumable, checked by parts, and exported to Megatron."""

import json
import os
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from modelhub.ml.pretraining.shards import MappedShards
from modelhub.ml.rundir import RunDir
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenise import main
from modelhub.ml.tokenising.tokenizers import tokenizer_open, tokenizer_train
from modelhub.ml.tokenising.writer import (
    DamagedError,
    TokenFileWriter,
    dtype_for,
    tokens_told,
    tokens_verify,
)
from tests.modelhub.ml.corpora.corpus import corpus_write
from tests.modelhub.ml.runs import program_finish, program_start, run_write

TEXTS = [f"Document {i} of the fox. " * (1 + i % 7) for i in range(60)]
PROGRAM = "modelhub.ml.tokenising.tokenise"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    tokenizer_train(iter(TEXTS), TrainTokenizerConfig(vocabulary=300)).save_pretrained(folder)
    return folder


def tokenised(folder: Path, tokenizer: Path, texts: list[str], **config) -> tuple[Path, dict]:
    corpus = corpus_write(folder / "corpus", texts)
    given = {"workers": 1, "chunk_characters": 500, **config}
    run = run_write(folder / "run", "tokenise", given, corpus=corpus, tokenizer=tokenizer)
    main(RunDir(run))
    return run / "outputs" / "tokens", json.loads((run / "result.json").read_text())["result"]


def test_a_set_holds_every_document_and_its_end(tmp_path, tokenizer):
    folder, result = tokenised(tmp_path, tokenizer, TEXTS, shard_characters=2500)
    loaded = tokenizer_open(tokenizer)
    wanted = [[*loaded.encode(text), loaded.eos_token_id] for text in TEXTS]
    files = sorted(folder.glob("*.ds"))
    assert len(files) == result["files"] > 1
    written = np.concatenate([np.fromfile(path, "<u2") for path in files])
    assert written.tolist() == [token for document in wanted for token in document]
    assert (result["documents"], result["tokens"]) == (60, len(written))
    shards = MappedShards(folder)
    assert (shards.documents, shards.tokens) == (60, len(written))
    named = [one.id for n in range(shards.tokens // 50) for one in shards.block_documents(n, 50)]
    assert list(dict.fromkeys(named)) == [f"d{i}" for i in range(60)]
    assert shards.block_documents(0, 5)[0].source == "test"
    first = np.fromfile(files[0].with_name("00000.ds.index"), "<u8")
    metadata = files[0].with_name("00000.ds.metadata").read_text()
    assert metadata == f"{len(loaded)}-tokens|2\n{first[-1]}\n{tokens_told(int(first[-1]))}"


def test_two_processes_write_the_bytes_of_one(tmp_path, tokenizer):
    one, _ = tokenised(tmp_path / "one", tokenizer, TEXTS, shard_characters=2500)
    two, _ = tokenised(tmp_path / "two", tokenizer, TEXTS, shard_characters=2500, workers=2)
    for path in sorted(one.glob("*.ds*")):
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_a_killed_run_goes_on_to_the_set_of_an_uninterrupted_one(tmp_path, tokenizer):
    texts = [f"{i} {TEXTS[i % 60]}" * 30 for i in range(900)]
    config = {"workers": 1, "chunk_characters": 5000, "shard_characters": 200_000}
    corpus = corpus_write(tmp_path / "corpus", texts)
    inputs = {"corpus": corpus, "tokenizer": tokenizer}
    whole = run_write(tmp_path / "whole", "tokenise", config, **inputs)
    main(RunDir(whole))
    run = run_write(tmp_path / "killed", "tokenise", config, **inputs)
    process = program_start(PROGRAM, run)
    part = run / "checkpoints" / "tokens"
    deadline = time.monotonic() + 120
    while not (part / "00001.ds.metadata").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (run / "log.txt").read_text()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "result.json").exists()
    program_finish(PROGRAM, run)
    assert "files are whole: on from document" in (run / "log.txt").read_text()
    names = [path.name for path in sorted((whole / "outputs/tokens").glob("*.ds*"))]
    assert names == [path.name for path in sorted((run / "outputs/tokens").glob("*.ds*"))]
    for name in names:
        ours, theirs = (one / "outputs" / "tokens" / name for one in (run, whole))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_special_tokens_name_inside_a_text_is_text(tmp_path, tokenizer):
    folder, result = tokenised(tmp_path, tokenizer, ["an <|endoftext|> inside", "b"])
    tokens = np.fromfile(folder / "00000.ds", "<u2")
    assert result["documents"] == 2 == int((tokens == 0).sum())


def test_damage_is_named_with_its_bytes(tmp_path, tokenizer):
    folder, _ = tokenised(tmp_path, tokenizer, TEXTS * 400)
    assert tokens_verify(folder) == 1
    path = folder / "00000.ds"
    whole = path.read_bytes()
    assert len(whole) > 1 << 20
    place = (1 << 20) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DamagedError, match=r"00000\.ds is damaged between bytes 1048576 and"):
        tokens_verify(folder)
    path.write_bytes(whole[: 1 << 20])
    with pytest.raises(DamagedError, match=r"00000\.ds ends at byte 1048576, in part 1 of"):
        tokens_verify(folder)


def test_megatrons_index_is_read_back(tmp_path, tokenizer):
    folder, _ = tokenised(tmp_path, tokenizer, TEXTS[:5], megatron=True)
    index = (folder / "00000.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack("<QBQQ", index[9:34]) == (1, 8, 5, 6)
    lengths = np.frombuffer(index, "<i4", 5, 34)
    places = np.frombuffer(index, "<i8", 5, 34 + 20)
    borders = np.frombuffer(index, "<i8", 6, 34 + 20 + 40)
    assert len(index) == 34 + 20 + 40 + 48
    ends = np.fromfile(folder / "00000.ds.index", "<u8")
    assert lengths.tolist() == np.diff(ends.astype(int), prepend=0).tolist()
    assert places.tolist() == [0, *(2 * ends[:-1]).tolist()]
    assert borders.tolist() == [0, 1, 2, 3, 4, 5]
    assert (folder / "00000.bin").read_bytes() == (folder / "00000.ds").read_bytes()


def test_datatrove_reads_a_set_as_its_own(tmp_path):
    pytest.importorskip("datatrove", reason="the scale extra is not installed")
    pytest.importorskip("torch", reason="the ml extra is not installed")
    from datatrove.pipeline.tokens.merger import load_doc_ends
    from datatrove.utils.dataset import DatatroveFileDataset

    writer = TokenFileWriter(tmp_path / "00000.ds", dtype=np.uint16, tokenizer="11-tokens")
    lengths = np.array([4, 3, 5])
    names = [(f"{number}", "s") for number in range(3)]
    writer.add(np.array([1, 2, 3, 9, 4, 5, 9, 6, 7, 8, 10, 9], dtype=np.uint32), lengths, names)
    writer.close()
    read = DatatroveFileDataset(
        str(tmp_path / "00000.ds"), seq_len=3, token_size=2, return_positions=True
    )
    found = [read[number]["input_ids"].tolist() for number in range(len(read))]
    assert found == [[1, 2, 3, 9], [4, 5, 9, 6], [7, 8, 10, 9]]
    assert read[1]["positions"].tolist() == [0, 1, 2, 0]
    with (tmp_path / "00000.ds.index").open("rb") as index:
        assert load_doc_ends(index).tolist() == [4, 7, 12]


def test_tokens_take_the_smallest_type_that_holds_them():
    assert dtype_for(65_536) is np.uint16
    assert dtype_for(65_537) is np.uint32
    told = {7: "7.00 T", 599: "599 T", 1500: "1.50 kT", 23_456_789: "23.5 MT"}
    assert {number: tokens_told(number) for number in told} == told
