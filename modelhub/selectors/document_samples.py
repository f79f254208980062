"""Which documents of a corpus to ask people about."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from itertools import zip_longest

from modelhub.ml.corpora.rules import CHINESE, RULES, Rule, threshold_for
from modelhub.models import Artifact
from modelhub.selectors.corpora import surveyed_groups
from modelhub.storage import artifact_folder

if typing.TYPE_CHECKING:
    import pyarrow as pa

ANYWHERE = "anywhere"
EVERY_RULE = "every"
_LOT = 2_654_435_761  # Knuth's multiplicative hash: an order that has nothing to do with places
_LOTS = 2**32


def documents_sample(
    *,
    corpus: Artifact,
    thresholds: Mapping[str, float],
    near: str,
    count: int,
    without: Collection[int] = (),
) -> list[int]:
    """Places of at most `count` documents that are worth a judgement, in the corpus's order.

    near: a rule's name takes those nearest to its threshold, as many on either side and, where the
    rule has a threshold for Chinese, in either; EVERY_RULE goes round the rules that take some
    documents and leave some, one of each at a time; ANYWHERE draws from all. `without` are never
    taken. The same question has the same answer. No query; of a large corpus its spread sample is
    looked at.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if near == ANYWHERE:
        columns: list[str] = []
        rules: list[Rule] = []
    else:
        rules = list(RULES.values()) if near == EVERY_RULE else [RULES[near]]
        columns = list(dict.fromkeys(rule.signal for rule in rules))
    parts: list[pa.Table] = []
    for start, signals in surveyed_groups(artifact_folder(corpus)):
        places = pa.array(range(start, start + signals.num_rows), pa.int64())
        part = signals.select(["language", *columns]).append_column("place", places)
        parts.append(part)
    if not parts:
        return []
    table = pa.concat_tables(parts)
    if without:
        taken = pc.is_in(table["place"], value_set=pa.array(sorted(without), pa.int64()))
        table = table.filter(pc.invert(taken))
    # Modulo 2³² by a mask: Arrow has no remainder.
    lots = pc.bit_wise_and(pc.multiply(table["place"], pa.scalar(_LOT, pa.int64())), _LOTS - 1)
    table = table.append_column("lot", lots)
    if near == ANYWHERE:
        return sorted(_first(table, [("lot", "ascending")], count))
    chosen: dict[int, None] = {}
    queues: list[list[int]] = []
    for rule in rules:
        for is_chinese in (False, True):
            sides = _nearest(table, rule, thresholds, is_chinese=is_chinese, count=count)
            # Among all rules one that takes nothing, or everything, has no threshold to look at.
            if near != EVERY_RULE or all(sides):
                queues += sides
    for row in zip_longest(*queues):
        for place in row:
            if place is not None and len(chosen) < count:
                chosen[place] = None
    return sorted(chosen)


def _nearest(
    table: pa.Table,
    rule: Rule,
    thresholds: Mapping[str, float],
    *,
    is_chinese: bool,
    count: int,
) -> list[list[int]]:
    """Places on either side of a threshold, the nearest first; empty where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    threshold = threshold_for(thresholds, rule.name, is_chinese=is_chinese)
    if threshold is None:
        return [[], []]
    own = pc.equal(table["language"], CHINESE)
    part = table.filter(own if is_chinese else pc.invert(own))
    value = pc.cast(part[rule.signal], pa.float64())
    part = part.append_column("distance", pc.abs(pc.subtract(value, threshold)))
    below = pc.less(value, threshold) if rule.is_minimum else pc.less_equal(value, threshold)
    order = [("distance", "ascending"), ("lot", "ascending")]
    return [_first(part.filter(side), order, count) for side in (below, pc.invert(below))]


def _first(table: pa.Table, order: list[tuple[str, str]], count: int) -> list[int]:
    import pyarrow.compute as pc

    rows = pc.select_k_unstable(table, k=min(count, len(table)), sort_keys=order)
    places: list[int] = table["place"].take(rows).to_pylist()
    return places
