"""Reading token sets: blocks across files, positions, documents, and what is broken."""

import numpy as np
import pytest

from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.data import source_make
from modelhub.ml.pretraining.shards import Document, MappedShards, ShardsError


def written(folder, files, dtype=np.uint16):
    folder.mkdir(exist_ok=True)
    for name, documents in files.items():
        tokens = [token for document in documents for token in document]
        np.array(tokens, dtype=dtype).tofile(folder / f"{name}.ds")
        ends = np.cumsum([len(document) for document in documents])
        ends.astype(np.uint64).tofile(folder / f"{name}.ds.index")
    return folder


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_block_runs_over_files_and_its_positions_restart_with_documents(tmp_path, dtype):
    files = {"00": [[1, 2, 3], [4, 5]], "01": [[6, 7], [8, 9, 10]]}
    shards = MappedShards(written(tmp_path, files, dtype))
    assert (shards.tokens, shards.documents) == (10, 4)
    first, second = (shards.block(number, 4) for number in range(2))
    assert (first.tokens.tolist(), first.positions.tolist()) == ([1, 2, 3, 4], [0, 1, 2, 0])
    assert (second.tokens.tolist(), second.positions.tolist()) == ([5, 6, 7, 8], [0, 0, 1, 0])
    names = [[one.id for one in shards.block_documents(number, 4)] for number in range(2)]
    assert names == [["document 0", "document 1"], ["document 1", "document 2", "document 3"]]
    # The last two tokens, and two of the set's first.
    tail = shards.block(2, 4)
    assert (tail.tokens.tolist(), tail.positions.tolist()) == ([9, 10, 1, 2], [0, 1, 0, 1])
    assert [one.id for one in shards.block_documents(2, 4)] == ["document 3", "document 0"]
    # Its last three tokens, and the first four: a document and the next one's beginning.
    wide = shards.block(1, 7)
    assert wide.tokens.tolist() == [8, 9, 10, 1, 2, 3, 4]
    assert wide.positions.tolist() == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(IndexError, match="block 3 of 3"):
        shards.block(3, 4)
    with pytest.raises(IndexError, match="block 0 of 1"):
        shards.block(0, 11)


def test_random_blocks_hold_what_was_written(tmp_path):
    draw = np.random.default_rng(0)
    documents = [draw.integers(0, 900, draw.integers(1, 30)).tolist() for _ in range(60)]
    shards = MappedShards(written(tmp_path, {"a": documents[:13], "b": documents[13:]}))
    tokens = [token for document in documents for token in document]
    positions = [place for document in documents for place in range(len(document))]
    for number in range(shards.tokens // 17):
        block, own = shards.block(number, 17), slice(17 * number, 17 * number + 17)
        assert block.tokens.tolist() == tokens[own]
        # As written, but that the document the block begins in is counted from the block.
        wanted = np.array(positions[own])
        head = np.flatnonzero(np.append(wanted[1:], 0) == 0)[0] + 1
        wanted[:head] = np.arange(head)
        assert block.positions.tolist() == wanted.tolist()


@pytest.mark.parametrize("tokens", [300, 307])
def test_every_token_is_trained_on_or_kept_and_none_is_both(tmp_path, tokens):
    """The tail behind the last whole block too, which lies behind the blocks that are kept."""
    shards = MappedShards(written(tmp_path, {"a": [list(range(tokens))]}))
    config = PretrainConfig(block_tokens=10, validation_blocks=3)
    source = source_make("set", shards, config, is_replay=False)
    first, last = source.train_blocks, source.train_blocks + source.validation_blocks
    trained = {token for block in range(first) for token in source.read(block)[0].tolist()}
    kept = [token for block in range(first, last) for token in source.read(block)[0].tolist()]
    assert kept == list(range(270, 300))
    assert trained == set(range(tokens)) - set(kept)
    assert source.documents(first - 1) == ["document 0"]


def test_documents_have_the_names_that_lie_beside(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    shards = written(tmp_path, {"00": [[1, 2], [3]], "01": [[4, 5, 6]]})
    pq.write_table(
        pa.table({"id": ["a", "b"], "source": ["novel", "novel"]}), shards / "00.ds.documents"
    )
    opened = MappedShards(shards)
    assert opened.block_documents(0, 6) == [
        Document("a", "novel"),
        Document("b", "novel"),
        Document("document 2"),
    ]


def test_broken_files_are_named(tmp_path):
    with pytest.raises(ShardsError, match="holds no tokens"):
        MappedShards(tmp_path)
    folder = written(tmp_path, {"00": [[1, 2, 3], [4, 5]]})
    whole = (folder / "00.ds").read_bytes()
    (folder / "00.ds").write_bytes(whole[:-1])
    with pytest.raises(ShardsError, match=r"00\.ds is 9 bytes, and its index says 5 tokens"):
        MappedShards(folder)
    (folder / "00.ds").write_bytes(whole)
    index = (folder / "00.ds.index").read_bytes()
    (folder / "00.ds.index").write_bytes(index[:-3])
    with pytest.raises(ShardsError, match=r"00\.ds\.index is cut off at byte 13"):
        MappedShards(folder)
    np.array([6, 5], dtype=np.uint64).tofile(folder / "00.ds.index")
    with pytest.raises(ShardsError, match=r"document 1 ends before it begins"):
        MappedShards(folder)
    (folder / "00.ds.index").unlink()
    with pytest.raises(ShardsError, match=r"00\.ds\.index is missing"):
        MappedShards(folder)
