"""The legend of a picture: every label, in as many lines as it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tspcli.features.plots.colors import legend_entries
from tspcli.features.plots.data import PlotData
from tspcli.features.plots.texts import Ruler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE_IN = 0.15
_PATCH_IN, _PATCH_GAP_IN, _ENTRY_GAP_IN = 0.1, 0.05, 0.16
_MOST_IN = 2.4
_SIZE = 7


@dataclass(frozen=True)
class Entry:
    """One label in its place.

    Attributes:
        text: The label, cut if it is long.
        color: Its colour.
        left_in: From the legend's left edge.
        line: Its line, from 0.
    """

    text: str
    color: str
    left_in: float
    line: int


@dataclass(frozen=True)
class Legend:
    """Entries in their places.

    Attributes:
        entries: The entries.
        height_in: The legend's height.
    """

    entries: list[Entry]
    height_in: float

    def draw(self, figure: Figure, left_in: float, top_in: float) -> None:
        """Draw it; ``top_in`` is the height of its upper edge over the figure's lower one."""
        from matplotlib.patches import Rectangle

        width, height = figure.get_size_inches()
        for entry in self.entries:
            left = left_in + entry.left_in
            middle = top_in - (entry.line + 0.5) * _LINE_IN
            corner = left / width, (middle - _PATCH_IN / 2) / height
            figure.add_artist(
                Rectangle(
                    corner,
                    _PATCH_IN / width,
                    _PATCH_IN / height,
                    color=entry.color,
                    lw=0,
                    transform=figure.transFigure,
                )
            )
            figure.text(
                (left + _PATCH_IN + _PATCH_GAP_IN) / width,
                middle / height,
                entry.text,
                fontsize=_SIZE,
                va="center_baseline",
            )


def lay_out(data: PlotData, ruler: Ruler, width_in: float) -> Legend:
    """Put the labels into lines of so many inches; none if there is one label or none."""
    if len(data.labels) < 2:
        return Legend([], 0.0)
    entries: list[Entry] = []
    left, line = 0.0, 0
    for label, color in legend_entries(data):
        text = ruler.fitted(label, min(_MOST_IN, width_in), fontsize=_SIZE)
        wide = _PATCH_IN + _PATCH_GAP_IN + ruler.width_in(text, fontsize=_SIZE)
        if left and left + wide > width_in:
            left, line = 0.0, line + 1
        entries.append(Entry(text, color, left, line))
        left += wide + _ENTRY_GAP_IN
    return Legend(entries, (line + 1) * _LINE_IN + 0.05)
