"""The colours of annotated segments, the same in pictures, pages and terminals."""

from __future__ import annotations

from tspcli.features.plots.data import PlotData

_BASE = (
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800",
)  # fmt: skip
_DARK, _LIGHT = 0.5, 0.5


def _mixed(color: str, target: int, share: float) -> str:
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (target - c) * share):02x}" for c in channels)


SEGMENT_COLORS = (
    *_BASE,
    *(_mixed(color, 0, _DARK) for color in _BASE),
    *(_mixed(color, 255, _LIGHT) for color in _BASE),
)
"""Colours that people with a colour vision deficiency can tell apart (Okabe and Ito), then the same
darker, then lighter."""

OTHER_COLOR = "#000000"
"""Of labels for which there is no colour left."""


def segment_colors(data: PlotData) -> dict[str, str]:
    """A colour for each label; no two labels share one, but those that have :data:`OTHER_COLOR`."""
    colors = dict(zip(data.labels, SEGMENT_COLORS, strict=False))
    return colors | dict.fromkeys(data.labels[len(colors) :], OTHER_COLOR)


def legend_entries(data: PlotData) -> list[tuple[str, str]]:
    """(Label, colour) of each entry of a legend; those without a colour of their own share one."""
    colors = segment_colors(data)
    named = [label for label in data.labels if colors[label] != OTHER_COLOR]
    entries = [(label, colors[label]) for label in named]
    if rest := len(data.labels) - len(named):
        entries.append((f"{rest} other{'s' * (rest > 1)}", OTHER_COLOR))
    return entries
