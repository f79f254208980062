"""metrics.jsonl of a run's directory (modelhub/ml/rundir.py): lines in, points out."""

import math
from collections.abc import Iterable

from modelhub.ml.records import json_strict
from modelhub.services.runs import LEFT_LOSS


def metric_lines(
    lines: Iterable[bytes],
) -> tuple[list[tuple[int, str, float]], int | None]:
    """(points, the step training went back to, or None) of lines of metrics.jsonl.

    Where it went back, what was told of later steps is none of the curve; of the loss it is kept
    apart, as `loss_left`. Points that were kept before are for the caller to clear.
    """
    points: list[tuple[int, str, float]] = []
    rewound_to: int | None = None
    for line in lines:
        back = _rewound(line)
        if back is None:
            points += metric_points(line)
            continue
        rewound_to = back if rewound_to is None else min(back, rewound_to)
        points = [
            (step, LEFT_LOSS if step > back and name == "loss" else name, value)
            for step, name, value in points
            if step <= back or name in ("loss", LEFT_LOSS)
        ]
    return points, rewound_to


def metric_points(line: bytes) -> list[tuple[int, str, float]]:
    """The (step, name, value) points of one line of metrics.jsonl; none if it is no such line."""
    try:
        value = json_strict(line)
        step, values = value["step"], value["values"]
        return [
            (int(step), str(name)[:80], float(number))
            for name, number in values.items()
            if math.isfinite(number)
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _rewound(line: bytes) -> int | None:
    """The step that a line says training went back to, or None."""
    if b"rewound_to" not in line:
        return None
    try:
        back = json_strict(line)["rewound_to"]
    except (ValueError, TypeError, KeyError):
        return None
    return back if type(back) is int else None
