import pytest

from modelhub.ml.corpora.words import han_share, word_spans, words_split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I’m re-using v3.14!", ["I", "’m", "re", "-", "using", "v3.14", "!"]),
        ("It's don't, l'eau", ["It", "'s", "don", "'t", ",", "l'eau"]),
        ("wait... what?! ** -- ……", ["wait", "...", "what", "?", "!", "*", "*", "--", "……"]),
        ("三国演义, 第1回", ["三", "国", "演", "义", ",", "第", "1", "回"]),
        ("用PyTorch训练", ["用", "PyTorch", "训", "练"]),
        ("ภาษา", list("ภาษา")),
        ("für straße", ["für", "straße"]),
        ("", []),
    ],
)
def test_words_of_spaced_and_unspaced_scripts(text: str, expected: list[str]) -> None:
    assert words_split(text) == expected
    assert [text[start:end] for start, end in word_spans(text)] == expected


def test_the_share_of_chinese_leaves_spaces_out() -> None:
    assert han_share("三国 ab\n") == 0.5
    assert han_share(" \n") == 0.0
