"""Rows of things side by side: what is said of each, which is the best, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext

from modelhub.json_text import json_text
from modelhub.models import ModelVersion, Run
from modelhub.version_figures import Figure


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a row says of one version. `about` is the whole of a text that is shown in part."""

    text: str = "–"
    about: str = ""
    lines: Sequence[str] = ()
    run: Run | None = None
    version: ModelVersion | None = None
    figure: Figure | None = None
    is_best: bool = False
    behind: str = ""  # the best one's figure subtracted from it, with its sign

    @property
    def said(self) -> str:
        return self.about or "\n".join(self.lines) or self.text


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One thing of every version, in their order."""

    name: str
    cells: Sequence[Cell]
    note: str = ""  # why none is called the best, or how sure that is

    @property
    def differs(self) -> bool:
        return len({cell.said for cell in self.cells}) > 1


def row_ranked(
    label: str, figures: Sequence[Figure | None], *, more_is_better: bool, note: str = ""
) -> ComparedRow:
    """Mark the best of a row, unless a note says why there is none; the others by how far behind.

    Where another's interval reaches into the best one's, the note says so.
    """
    there = [figure for figure in figures if figure is not None]
    if note or len({one.value for one in there}) < 2:
        return ComparedRow(name=label, note=note, cells=[figure_cell(figure) for figure in figures])
    pick = max if more_is_better else min
    best = pick(there, key=lambda one: one.value)
    close = any(one.overlaps(best) for one in there if one.value != best.value)
    cells = []
    for figure in figures:
        is_best = figure is not None and figure.value == best.value
        behind = ""
        if figure is not None and not is_best:
            behind = f"{figure.value - best.value:+.3g}".replace("-", "−")
        cells.append(figure_cell(figure, is_best=is_best, behind=behind))
    note = gettext("their intervals overlap") if close else ""
    return ComparedRow(name=label, cells=cells, note=note)


def figure_cell(figure: Figure | None, *, is_best: bool = False, behind: str = "") -> Cell:
    if figure is None:
        return Cell()
    return Cell(text=figure_text(figure), figure=figure, is_best=is_best, behind=behind)


def figure_text(figure: Figure) -> str:
    """ "0.72 [0.64, 0.8]"."""
    text = json_text(figure.value)
    if not figure.has_interval:
        return text
    return f"{text} [{json_text(figure.low)}, {json_text(figure.high)}]"


def figure_label(name: str) -> str:
    """A figure's name in words."""
    table, _, row = name.partition(".")
    if table == "sources":
        return gettext("validation perplexity on %(source)s") % {"source": row}
    if table == "beside_parent":
        return gettext("%(figure)s, unseen") % {"figure": row}
    if table == "held_out_tables":
        return gettext("held-out accuracy, %(pairs)s") % {"pairs": row.partition(".")[2]}
    return name.replace(".", " · ").replace("_", " ")
