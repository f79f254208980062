"""What a cleaning dropped, read batch by batch."""

from pathlib import Path

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from modelhub.selectors import corpora
from tests.modelhub.corpora import make_cleaned, make_corpus

pytestmark = pytest.mark.django_db


def test_twenty_of_what_a_step_dropped_are_spread_over_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "_ROWS_A_BATCH", 4)
    texts = ["The same words, again and again.", "Others."] + [
        "The same words, again and again."
    ] * 39
    cleaned = make_cleaned(tmp_path, make_corpus(tmp_path, texts), families=[])
    removed = corpora.removed_view(cleaned=cleaned, step="exact_duplicate")
    assert removed is not None and removed.count == 39
    places = [one.place for one in removed.examples]
    assert (len(places), places[0], places[-1]) == (20, 2, 40)
    assert places == sorted(set(places))
    assert all(one.document.text == texts[0] for one in removed.examples)
    empty = corpora.removed_view(cleaned=cleaned, step="language")
    assert empty is not None and (empty.count, empty.examples) == (0, [])
