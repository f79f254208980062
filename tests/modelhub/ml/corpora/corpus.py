"""Corpora for tests, every signal measured."""

import json
from itertools import pairwise
from pathlib import Path

from modelhub.ml.corpora.documents import CorpusWriter, Document
from modelhub.ml.corpora.signals import documents_measure, signals_schema


def corpus_write(folder: Path, texts: list[str], *, source: str = "test", shards: int = 1) -> Path:
    """A corpus of texts, as an import makes it: ids d0, d1, …"""
    folder.mkdir(parents=True)
    documents = [Document(id=f"d{i}", text=text, source=source) for i, text in enumerate(texts)]
    borders = [len(texts) * one // shards for one in range(shards + 1)]
    for number, (start, end) in enumerate(pairwise(borders)):
        part = number if shards > 1 else None
        with CorpusWriter(folder, signals_schema(), part=part) as writer:
            for document, signals in documents_measure(documents[start:end]):
                writer.add(document, signals)
    return folder


def evaluation_write(folder: Path, texts: list[str]) -> Path:
    """Prompts to evaluate on: e0, e1, …"""
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"prompt_id": f"e{i}", "messages": [{"role": "user", "content": text}]})
        for i, text in enumerate(texts)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def word_list_write(folder: Path, lines: list[str]) -> Path:
    """A list of words as somebody has it: a file of text."""
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
