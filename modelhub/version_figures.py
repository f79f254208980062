"""The figures that were measured of a version, each with its bounds and which way is better.

    {"held_out": {"accuracy": 0.72, "accuracy_low": 0.64, "accuracy_high": 0.8}}
    → {"held_out.accuracy": Figure(0.72, 0.64, 0.8)}

Programs write their results as JSON and name figures as they like; here the names of those that
tell a better version from a worse one are known. Plain Python.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.figure_order import figure_order

# The last part of a name → whether more of it is better.
_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "accuracy_after": True,
    "accuracy_when_shorter_won": True,
    "token accuracy": True,
    "preference accuracy": True,
    "answer accuracy": True,
    "loss": False,
    "loss_after": False,
    "perplexity": False,
    "perplexity_after": False,
    "calibration_error": False,
    "divergence": False,
    "forgotten_nats": False,
}
# Of what was unseen. A loss of the last step is of the samples it read, which no other run read.
_UNSEEN = ("held_out.", "validation.", "sources.", "held_out_tables.", "beside_parent.")
_BY_THEMSELVES = ("perplexity", "divergence", "forgotten_nats")
# In another vocabulary a token is another thing.
_BY_TOKENS = ("loss", "loss_after", "perplexity", "perplexity_after", "token accuracy")
# Tables whose rows are figures: the column that names a row, and the one that is its figure.
_TABLES: Mapping[str, tuple[str, str]] = {
    "sources": ("source", "perplexity_after"),
    "beside_parent": ("figure", "own"),
    "held_out_tables.by_degree": ("pairs_of", "accuracy"),
    "held_out_tables.by_writer": ("pairs_of", "accuracy"),
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with the interval that was measured with it, if any."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    def overlaps(self, other: "Figure") -> bool:
        """Whether both have intervals and these have a value in common."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.low <= other.high and other.low <= self.high


def figures_read(facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Every single number of nested facts by its dotted name, what matters most first.

    NAME_low and NAME_high are the bounds of NAME, and so are "low" and "high" beside a "mean"; NAME
    beside a NAME_after is NAME_before. Of the tables a row is a figure where _TABLES says so; lists
    of plain numbers are curves and no figures.
    """
    found = dict(_read(facts, ""))
    return dict(sorted(found.items(), key=lambda one: (not figure_is_ranked(one[0]), _order(one))))


def figure_is_ranked(name: str) -> bool:
    """Whether one value of a figure is better than another."""
    return figure_more_is_better(name) is not None


def figure_more_is_better(name: str) -> bool | None:
    """Whether more of a figure is better, or less of it is; None where neither is."""
    leaf = _leaf(name)
    if name in _BY_THEMSELVES or name.startswith(_UNSEEN):
        return _BETTER.get(leaf)
    return None


def figure_is_by_tokens(name: str) -> bool:
    """Whether it counts tokens, and so tells nothing beside one of another vocabulary."""
    return _leaf(name) in _BY_TOKENS


def parent_differences(facts: Mapping[str, Any]) -> dict[str, Figure]:
    """What a quantised version lost beside its parent: figure → own minus parent's, with bounds."""
    rows = facts.get("beside_parent")
    found = {}
    for row in rows if isinstance(rows, list) else ():
        difference = _figure(row, "difference")
        if difference is not None and isinstance(row.get("figure"), str):
            found[row["figure"]] = difference
    return found


def _leaf(name: str) -> str:
    for table, (_, figure) in _TABLES.items():
        if name.startswith(f"{table}."):
            return name.removeprefix(f"{table}.") if figure == "own" else figure
    return name.rpartition(".")[2]


def _order(one: tuple[str, Figure]) -> tuple[int, int, str]:
    return figure_order(one[0])


def _read(value: Mapping[str, Any], under: str) -> Iterator[tuple[str, Figure]]:
    for key, item in value.items():
        name = f"{under}.{key}" if under else str(key)
        if f"{key}_after" in value:
            name += "_before"
        if isinstance(item, Mapping):
            mean = _figure(item, "mean")
            if mean is not None and {"low", "high"} <= item.keys():
                yield name, mean
            else:
                yield from _read(item, name)
        elif isinstance(item, list) and name in _TABLES:
            yield from _rows(item, name)
        elif _is_number(item) and not _is_bound(key, value):
            yield name, _bounded(value, key)


def _rows(rows: Sequence[Any], name: str) -> Iterator[tuple[str, Figure]]:
    named_by, column = _TABLES[name]
    for row in rows:
        figure = _figure(row, column)
        if figure is not None and isinstance(row.get(named_by), str):
            yield f"{name}.{row[named_by]}", figure


def _figure(row: Any, name: str) -> Figure | None:
    """A number of an object with its bounds, NAME_low or plain "low"."""
    if not isinstance(row, Mapping) or not _is_number(row.get(name)):
        return None
    if f"{name}_low" in row:
        return _bounded(row, name)
    low, high = row.get("low"), row.get("high")
    has_both = _is_number(low) and _is_number(high)
    return Figure(value=row[name], low=low if has_both else None, high=high if has_both else None)


def _bounded(value: Mapping[str, Any], name: str) -> Figure:
    low, high = value.get(f"{name}_low"), value.get(f"{name}_high")
    if not (_is_number(low) and _is_number(high)):
        low = high = None
    return Figure(value=value[name], low=low, high=high)


def _is_bound(name: str, beside: Mapping[str, Any]) -> bool:
    stem, _, side = name.rpartition("_")
    return side in ("low", "high") and stem in beside


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
