from pathlib import Path

import pytest

from modelhub.ml.corpora.documents import (
    CorpusError,
    CorpusWriter,
    Document,
    corpus_shards,
    documents_at,
    documents_count,
    documents_read,
)


def make_corpus(folder: Path, texts: list[str], **options: int) -> list[Document]:
    documents = [
        Document(id=f"d{i}", text=text, source="book", language="en", licence="CC0")
        for i, text in enumerate(texts)
    ]
    with CorpusWriter(folder, **options) as writer:
        for document in documents:
            writer.add(document)
    return documents


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    texts = [f"第{i}回 text\u2028with\r\nodd ends\0" for i in range(2500)]
    written = make_corpus(tmp_path, texts)
    assert list(documents_read(tmp_path)) == written
    assert documents_count(tmp_path) == 2500


def test_a_large_corpus_is_cut_into_shards(tmp_path: Path) -> None:
    written = make_corpus(tmp_path, ["x" * 10] * 3000, shard_characters=10_000)
    assert [path.name for path in corpus_shards(tmp_path)] == [
        "documents-00000.parquet",
        "documents-00001.parquet",
        "documents-00002.parquet",
    ]
    assert list(documents_read(tmp_path)) == written


def test_documents_are_found_by_place(tmp_path: Path) -> None:
    written = make_corpus(tmp_path, ["x" * 10] * 3000, shard_characters=10_000)
    assert documents_at(tmp_path, [2999, 0, 1000]) == [written[2999], written[0], written[1000]]
    with pytest.raises(IndexError, match="3000 documents"):
        documents_at(tmp_path, [3000])


def test_an_empty_corpus_is_one(tmp_path: Path) -> None:
    make_corpus(tmp_path, [])
    assert list(documents_read(tmp_path)) == []


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    make_corpus(tmp_path, ["some text"])
    (tmp_path / "documents-00001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(CorpusError, match=r"documents-00001\.parquet"):
        list(documents_read(tmp_path))


def test_a_folder_without_shards_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus"):
        list(documents_read(tmp_path))
