"""Which documents people are asked about."""

from pathlib import Path

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from modelhub.ml.corpora.rules import FAMILIES, thresholds_of
from modelhub.models import RunOutput
from modelhub.selectors.document_samples import ANYWHERE, EVERY_RULE, documents_sample
from tests.modelhub.corpora import make_corpus

pytestmark = pytest.mark.django_db
WORDS = "gopher.words_min"
THRESHOLDS = {WORDS: 50.0, f"{WORDS}@zh": 80.0}


@pytest.fixture
def corpus(tmp_path: Path) -> RunOutput:
    """English of 5, 10, … 100 words, and Chinese of 60 and 120 characters."""
    texts = ["word " * count for count in range(5, 101, 5)]
    return make_corpus(tmp_path, [*texts, "话说天下大势分久必合" * 6, "话说天下大势分久必合" * 12])


def sample(corpus: RunOutput, near: str, count: int, without: tuple[int, ...] = ()) -> list[int]:
    return documents_sample(
        corpus=corpus.artifact, thresholds=THRESHOLDS, near=near, count=count, without=without
    )


def test_those_nearest_to_a_threshold_are_taken_on_either_side(corpus: RunOutput) -> None:
    # Words of place i: 5 (i + 1). Below 50: 45 and 40; from 50 on: 50 and 55; Chinese: one a side.
    assert sample(corpus, WORDS, 6) == [7, 8, 9, 10, 20, 21]


def test_what_was_judged_before_is_not_taken_again(corpus: RunOutput) -> None:
    # Of the Chinese one is left: the others make up for it, a side at a time.
    assert sample(corpus, WORDS, 6, without=(8, 10, 20)) == [5, 6, 7, 9, 11, 21]
    assert sample(corpus, WORDS, 6, without=tuple(range(22))) == []


def test_of_every_rule_only_those_count_that_divide_the_corpus(corpus: RunOutput) -> None:
    thresholds = {WORDS: 50.0, "gopher.words_max": 100_000.0}
    found = documents_sample(
        corpus=corpus.artifact, thresholds=thresholds, near=EVERY_RULE, count=4
    )
    assert found == [7, 8, 9, 10]


def test_a_draw_from_all_is_spread_and_the_same_again(corpus: RunOutput) -> None:
    drawn = sample(corpus, ANYWHERE, 8)
    assert len(set(drawn)) == 8 and drawn == sorted(drawn) == sample(corpus, ANYWHERE, 8)
    assert drawn != list(range(8)) and max(drawn) > 10
    assert sample(corpus, ANYWHERE, 100) == list(range(22))


def test_with_all_published_rules_as_many_are_found_as_are_asked_for(corpus: RunOutput) -> None:
    found = documents_sample(
        corpus=corpus.artifact, thresholds=thresholds_of(FAMILIES), near=EVERY_RULE, count=10
    )
    assert len(found) == 10
