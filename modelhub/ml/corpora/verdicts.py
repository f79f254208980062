"""What thresholds say of documents: stored signals → which rule drops which. Arrow, no numpy.

The page that shows what would go and the program that lets it go ask the same function.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from modelhub.ml.corpora.rules import CHINESE, RULES, Rule

if typing.TYPE_CHECKING:
    from collections.abc import Sequence


def rule_masks(
    signals: pa.Table, thresholds: Mapping[str, float]
) -> Iterator[tuple[str, pa.Array]]:
    """(rule, whether it drops each row), for the rules that have a threshold, in their order.

    A rule with a threshold for Chinese alone, or for the rest alone, drops nothing else.
    """
    chinese = pc.fill_null(pc.equal(signals["language"], CHINESE), False)
    for name, rule in RULES.items():
        plain, own = thresholds.get(name), thresholds.get(f"{name}@{CHINESE}")
        if plain is None and own is None:
            continue
        dropped_chinese = pc.and_(chinese, _drops(signals, rule, own))
        dropped_rest = pc.and_(pc.invert(chinese), _drops(signals, rule, plain))
        yield name, pc.or_(dropped_chinese, dropped_rest)


def _drops(signals: pa.Table, rule: Rule, threshold: float | None) -> pa.Array | pa.Scalar:
    if threshold is None:
        return pa.scalar(False)
    column = signals[rule.signal]
    # As a column of its kind: 0.1 in single precision is not more than 0.1.
    value = pa.scalar(threshold, pa.float32() if pa.types.is_float32(column.type) else pa.float64())
    return pc.less(column, value) if rule.is_minimum else pc.greater(column, value)


def language_mask(signals: pa.Table, languages: Sequence[str], score_min: float) -> pa.Array | None:
    """Whether each row is in none of the languages that are kept, or not surely; None: all are."""
    if not languages:
        return None
    wanted = pc.is_in(signals["language"], value_set=pa.array(languages))
    sure = pc.greater_equal(signals["language_score"], pa.scalar(score_min, pa.float32()))
    return pc.invert(pc.and_(wanted, sure))
