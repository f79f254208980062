"""Which document holds a word of a list, and what is no list."""

from pathlib import Path

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from modelhub.ml.corpora.documents import CorpusError
from modelhub.ml.corpora.duplicates import content_hashes
from modelhub.ml.corpora.word_lists import WordList, phrases_read
from tests.modelhub.ml.corpora.corpus import corpus_write, word_list_write


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> WordList:
    folder = tmp_path_factory.mktemp("lists") / "list"
    WordList.write(["Zounds", "ill repute", "fie", "诛之", "a b c"], folder)
    return WordList(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He cried: ZOUNDS!", "Zounds"),
        ("zoundsman and unzounds", ""),  # whole words alone
        ("A house of ill\n repute.", "ill repute"),
        ("ill of repute", ""),
        ("a, b; c", "a b c"),  # marks between words are none
        ("Fie upon it, zounds", "fie"),  # of several the first in the text
        ("武谋诛之，机事", "诛之"),  # no spaces: wherever it stands
        ("诛，机", ""),
        ("", ""),
    ],
)
def test_a_phrase_is_found_as_whole_words(words: WordList, text: str, found: str) -> None:
    (hashes,) = content_hashes([text])
    assert words.first_in(hashes) == found


def test_notes_and_empty_lines_are_no_words(tmp_path: Path) -> None:
    lines = ["\ufeffone", "", "# two", "  three four "]
    assert list(phrases_read(word_list_write(tmp_path / "a", lines))) == ["one", "three four"]
    assert list(phrases_read(corpus_write(tmp_path / "b", ["one\n#no\ntwo"]))) == ["one", "two"]


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="empty is no list of words"):
        list(phrases_read(word_list_write(tmp_path / "empty", ["# nothing"])))
    folder = word_list_write(tmp_path / "latin", [])
    (folder / "words.txt").write_bytes("na\xefve".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"words\.txt, byte 2: not UTF-8"):
        list(phrases_read(folder))
    for line in ("!!", "so many words " * 9):
        with pytest.raises(CorpusError, match="a phrase has 1 to 16 words"):
            WordList.write([line], tmp_path / "list")
    assert not (tmp_path / "list").exists()
