"""A lineage as a picture: what a version was made of to its left, what was made of it to its right.

Each artifact is a box in the column of its generation, each run that read one to make another an
arrow. Numbers for an SVG; drawn on the server, so it is there without a script.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelhub.models import ModelVersion
from modelhub.selectors.lineage import LineageNode, lineage_nodes

BOX_WIDTH, BOX_HEIGHT = 176, 46
_GAP_X, _GAP_Y, _MARGIN = 56, 14, 4
MAX_ROWS = 12  # of a column; the list beside the picture has all
_NAME_CHARS = 20


@dataclass(frozen=True, kw_only=True)
class Box:
    """One artifact or version: its place, its words, and the page it leads to ("" for none)."""

    x: int
    y: int
    name: str  # as much of it as there is room for
    whole_name: str
    about: str
    version_uid: str
    is_here: bool


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A curve from one box to another, as an SVG path."""

    path: str


@dataclass(frozen=True, kw_only=True)
class LineageChart:
    """Boxes and arrows in `width` × `height` units; `left_out` boxes had no room."""

    width: int
    height: int
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    left_out: int


def lineage_chart(
    root: LineageNode, version: ModelVersion, children: Sequence[ModelVersion]
) -> LineageChart:
    """Lay out a version's lineage. Every box stands left of all that was made of it."""
    generation: dict[int, int] = {}
    _generations(root, 0, generation, {node.artifact.pk: node for node in lineage_nodes(root)})
    deepest = max(generation.values())
    columns: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    boxes: list[Box] = []
    left_out = 0

    def put(key: str, column: int, name: str, about: str, uid: str) -> None:
        nonlocal left_out
        row = columns.get(column, 0)
        if row == MAX_ROWS:
            left_out += 1
            return
        columns[column] = row + 1
        x = _MARGIN + column * (BOX_WIDTH + _GAP_X)
        y = _MARGIN + row * (BOX_HEIGHT + _GAP_Y)
        places[key] = (x, y)
        short = name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
        here = uid == version.uid
        boxes.append(
            Box(
                x=x,
                y=y,
                name=short,
                whole_name=name,
                about=about,
                version_uid=uid,
                is_here=here,
            )
        )

    nodes = list(lineage_nodes(root))
    for node in nodes:
        known = version if node is root else next(iter(node.versions), None)
        name = str(known) if known else node.title or f"{node.artifact.get_kind_display()}"
        about = f"{node.role or node.artifact.kind} · {node.artifact.sha256[:8]}"
        column = deepest - generation[node.artifact.pk]
        put(str(node.artifact.pk), column, name, about, known.uid if known else "")
    for child in children:
        about = child.get_role_display()
        put(f"child {child.pk}", deepest + 1, str(child), str(about), child.uid)

    pairs = [
        (str(inner.artifact.pk), str(node.artifact.pk)) for node in nodes for inner in node.inputs
    ]
    pairs += [(str(root.artifact.pk), f"child {child.pk}") for child in children]
    arrows = [
        _arrow(places[start], places[end])
        for start, end in dict.fromkeys(pairs)
        if start in places and end in places
    ]
    width = max(box.x for box in boxes) + BOX_WIDTH + _MARGIN
    height = max(box.y for box in boxes) + BOX_HEIGHT + _MARGIN
    return LineageChart(width=width, height=height, boxes=boxes, arrows=arrows, left_out=left_out)


def _generations(
    node: LineageNode, depth: int, found: dict[int, int], whole: dict[int, LineageNode]
) -> None:
    """The longest way from each artifact to the root, in runs: what was read twice stands left."""
    key = node.artifact.pk
    if found.get(key, -1) >= depth:
        return
    found[key] = depth
    for inner in whole[key].inputs:
        _generations(inner, depth + 1, found, whole)


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> Arrow:
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0] - 5, end[1] + BOX_HEIGHT // 2
    bend = max(20, (x2 - x1) // 2)
    return Arrow(path=f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}")
