"""The geometry of small charts: numbers in, SVG coordinates out. Plain Python, standard library.

Drawn on the server: the curves are there without a script, and a poll that changed nothing is
recognised by its bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320.0, 96.0
_PAD = 6.0
_LABEL_GAP = 7.0
_CHARACTER = 5.4  # the width of one in a label of 9 units
NAME_MAX_CHARS = 12


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line through points, as the `points` of an SVG polyline, with its first and last value."""

    points: str
    first: float
    last: float
    last_x: float
    last_y: float
    last_step: int


def curve_draw(values: Sequence[tuple[int, float]]) -> Curve | None:
    """Scale (step, value) points into WIDTH × HEIGHT; None for fewer than two."""
    if len(values) < 2:
        return None
    steps = [step for step, _ in values]
    numbers = [value for _, value in values]
    xs = _scale(steps, min(steps), max(steps), WIDTH)
    ys = [HEIGHT - y for y in _scale(numbers, min(numbers), max(numbers), HEIGHT)]
    return Curve(
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)),
        first=numbers[0],
        last=numbers[-1],
        last_x=round(xs[-1], 1),
        last_y=round(ys[-1], 1),
        last_step=steps[-1],
    )


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One figure of a chart by round: its place, and its interval's ends."""

    label: str
    short: str  # as much of the label as there is room for under the mark
    x: float
    label_x: float  # where the figure is written beside it
    y: float
    low_y: float
    high_y: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Figures with intervals over rounds, and where the zero line lies."""

    marks: list[Mark]
    points: str
    zero_y: float
    top: float
    bottom: float


def chart_draw(figures: Sequence[tuple[str, float, float, float]]) -> Chart | None:
    """Scale (label, value, low, high) into WIDTH × HEIGHT with 0 in sight; None for none."""
    if not figures:
        return None
    bottom = min(0.0, *(low for _, _, low, _ in figures))
    top = max(0.0, *(high for _, _, _, high in figures))

    def place(value: float) -> float:
        return round(HEIGHT - _scale([value], bottom, top, HEIGHT)[0], 1)

    width = WIDTH / len(figures)
    marks = [
        Mark(
            label=label,
            short=_fitted(label, width),
            x=round(width * (i + 0.5), 1),
            label_x=round(width * (i + 0.5) + _LABEL_GAP, 1),
            y=place(value),
            low_y=place(low),
            high_y=place(high),
            value=value,
            low=low,
            high=high,
        )
        for i, (label, value, low, high) in enumerate(figures)
    ]
    return Chart(
        marks=marks,
        points=" ".join(f"{mark.x},{mark.y}" for mark in marks),
        zero_y=place(0.0),
        top=top,
        bottom=bottom,
    )


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: its rectangle, and where its name is written."""

    label: str
    value: float
    x: float
    y: float
    width: float
    height: float
    middle: float
    is_named: bool  # where there are many, not every bar has room for its name


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars from a common floor, the highest as high as the chart."""

    bars: list[Bar]
    top: float

    @property
    def total(self) -> float:
        return math.fsum(bar.value for bar in self.bars)


_NAMES_AT_MOST = 8
_GAP_SHARE = 0.2
_WIDEST = 40.0


def bars_draw(values: Sequence[tuple[str, float]]) -> Bars | None:
    """Scale (label, value ≥ 0) into WIDTH × HEIGHT from 0; None for no values, or zeros alone."""
    top = max((value for _, value in values), default=0.0)
    if top <= 0:
        return None
    slot = WIDTH / len(values)
    width = min(slot * (1 - _GAP_SHARE), _WIDEST)
    every = math.ceil(len(values) / _NAMES_AT_MOST)
    bars = []
    for i, (label, value) in enumerate(values):
        height = round((HEIGHT - _PAD) * value / top, 1)
        bars.append(
            Bar(
                label=label,
                value=value,
                x=round(slot * (i + 0.5) - width / 2, 1),
                y=round(HEIGHT - height, 1),
                width=round(width, 1),
                height=height,
                middle=_within(slot * (i + 0.5), label),
                is_named=(len(values) - 1 - i) % every == 0,
            )
        )
    return Bars(bars=bars, top=top)


@dataclass(frozen=True, kw_only=True)
class HistogramBar:
    """One bar: its rectangle, what it counts, and whether a rule drops what it counts."""

    x: float
    y: float
    width: float
    height: float
    count: int
    low: float
    high: float
    is_dropped: bool


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts over equal parts of a range, and where a threshold cuts it."""

    bars: list[HistogramBar]
    low: float
    high: float
    threshold_x: float | None


def histogram_draw(
    counts: Sequence[int], low: float, high: float, threshold: float | None, *, is_minimum: bool
) -> Histogram | None:
    """Scale counts of equal parts of low to high into WIDTH × HEIGHT; None where all are zero.

    Heights go by the square root: a tail of a few documents is what one looks for. A rule drops
    below a minimum, above a maximum; the part that holds the threshold counts as kept.
    """
    top = max(counts, default=0)
    if top <= 0 or not high > low:
        return None
    step, width = (high - low) / len(counts), WIDTH / len(counts)
    bars = []
    for i, count in enumerate(counts):
        start, end = low + i * step, low + (i + 1) * step
        is_dropped = threshold is not None and (
            end <= threshold if is_minimum else start >= threshold
        )
        height = round((HEIGHT - _PAD) * math.sqrt(count / top), 1)
        bars.append(
            HistogramBar(
                x=round(i * width, 1),
                y=round(HEIGHT - height, 1),
                width=round(width * (1 - _GAP_SHARE), 1),
                height=height,
                count=count,
                low=start,
                high=end,
                is_dropped=is_dropped,
            )
        )
    at = None
    if threshold is not None and low <= threshold <= high:
        at = round((threshold - low) / (high - low) * WIDTH, 1)
    return Histogram(bars=bars, low=low, high=high, threshold_x=at)


@dataclass(frozen=True, kw_only=True)
class FunnelStep:
    """One step: what it dropped, what is left, and both as widths."""

    label: str
    dropped: int
    left: int
    left_width: float
    dropped_width: float


def funnel_draw(before: int, steps: Sequence[tuple[str, int]]) -> list[FunnelStep]:
    """Steps that drop (label, count) one after another of `before`, scaled into WIDTH."""
    drawn, left = [], before
    for label, dropped in steps:
        left -= dropped
        drawn.append(
            FunnelStep(
                label=label,
                dropped=dropped,
                left=left,
                left_width=round(WIDTH * left / before, 2) if before else 0.0,
                dropped_width=round(WIDTH * dropped / before, 2) if before else 0.0,
            )
        )
    return drawn


@dataclass(frozen=True, kw_only=True)
class StackPart:
    """A part of a stack over a stretch of a run: its rectangle, whose it is, and its share."""

    place: int  # of the source
    share: float
    x: float
    y: float
    width: float
    height: float


def stacks_draw(
    stretches: Sequence[tuple[float, Sequence[float]]], *, width: float = WIDTH
) -> list[StackPart]:
    """Scale stretches (length, shares that add up to 1), one behind the other, into `width` ×
    HEIGHT; parts of nothing are left out."""
    total = math.fsum(length for length, _ in stretches)
    parts, x = [], 0.0
    for length, shares in stretches:
        own_width = width * length / total if total else 0.0
        below = 0.0
        for place, share in enumerate(shares):
            if share > 0:
                parts.append(
                    StackPart(
                        place=place,
                        share=share,
                        x=round(x, 2),
                        y=round(HEIGHT * below, 2),
                        width=round(own_width, 2),
                        height=round(HEIGHT * share, 2),
                    )
                )
            below += share
        x += own_width
    return parts


def _fitted(label: str, width: float) -> str:
    """The label, cut to what stands in so much width."""
    room = max(2, int((width - _LABEL_GAP) / _CHARACTER))
    return label if len(label) <= room else f"{label[: room - 1]}…"


def _within(middle: float, label: str) -> float:
    """The middle of a label, moved so that neither end of it leaves the chart."""
    half = min(len(label), NAME_MAX_CHARS) * _CHARACTER / 2
    return round(min(max(middle, half), WIDTH - half), 1)


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Belief against accuracy as SVG points, and the line on which both are equal."""

    points: list[tuple[float, float]]
    line: str
    diagonal: str


def reliability_draw(points: Sequence[tuple[float, float]]) -> Reliability | None:
    """Scale (belief from 0.5 to 1, accuracy from 0 to 1) points into WIDTH × HEIGHT."""
    if not points:
        return None

    def place(belief: float, accuracy: float) -> tuple[float, float]:
        x = _PAD + (belief - 0.5) * 2 * (WIDTH - 2 * _PAD)
        y = HEIGHT - _PAD - accuracy * (HEIGHT - 2 * _PAD)
        return round(x, 1), round(y, 1)

    placed = [place(belief, accuracy) for belief, accuracy in points]
    return Reliability(
        points=placed,
        line=" ".join(f"{x},{y}" for x, y in placed),
        diagonal=" ".join(f"{x},{y}" for x, y in (place(0.5, 0.5), place(1.0, 1.0))),
    )


def _scale(values: Sequence[float], low: float, high: float, length: float) -> list[float]:
    """Values between low and high → lengths between the paddings; the middle if all are equal."""
    span = high - low
    if not span or not math.isfinite(span):
        return [length / 2 for _ in values]
    return [_PAD + (value - low) / span * (length - 2 * _PAD) for value in values]
