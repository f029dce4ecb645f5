"""A small rendering as a grid of colours, for a terminal to show two of them in a character."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tspcli.analysis.plot_data import FeatureView, PlotData
from tspcli.sampling.resampling import FloatArray, linear, roi_align

_MAGMA = np.array(
    [
        [0, 0, 4],
        [51, 16, 103],
        [125, 36, 130],
        [200, 62, 115],
        [249, 124, 93],
        [254, 211, 149],
        [252, 253, 191],
    ],
    dtype=np.float64,
)
_TICKS = "▁▂▃▄▅▆▇█"

Grid = npt.NDArray[np.uint8]


def matrix_grid(view: FeatureView, size: int, value_range: tuple[float, float]) -> Grid:
    """The similarity matrix as colours, uint8, shape (2 * (size // 2), size, 3)."""
    height = 2 * (size // 2)
    lines = _resized(view.similarity, height)
    cells = _resized(np.ascontiguousarray(lines.T), size).T
    low, high = value_range
    return _magma((cells - low) / (high - low))


def color_row(view: FeatureView, width: int) -> Grid:
    """The PCA strip as colours, uint8, shape (width, 3)."""
    return np.round(_resized(view.colors.astype(np.float32), width)).astype(np.uint8)


def change_line(view: FeatureView, width: int) -> str:
    """The change over time as one line of block characters; blank where there is none yet."""
    if not len(view.change):
        return " " * width
    seconds = column_seconds(view, width)
    values = np.interp(seconds, view.change_s, view.change, left=np.nan, right=np.nan)
    # What lies between two columns counts for the nearer, so that no peak is lost.
    columns = np.clip((view.change_s - view.edges_s[0]) / (view.end_s - view.edges_s[0]), 0, 1)
    nearest = np.minimum((columns * width).astype(int), width - 1)
    values[nearest] = -np.inf
    np.maximum.at(values, nearest, view.change)
    top = float(view.change.max()) or 1.0
    return "".join(
        " " if np.isnan(value) else _TICKS[min(7, int(8 * value / top))] for value in values
    )


def segment_line(data: PlotData, view: FeatureView, width: int) -> list[int | None]:
    """For each column the number of the label that is annotated there, or None."""
    numbers = {label: number for number, label in enumerate(data.labels)}
    times = column_seconds(view, width)
    line: list[int | None] = [None] * width
    for segment in data.segments:
        for column, time in enumerate(times):
            if segment.start_s <= time <= segment.end_s:
                line[column] = numbers[segment.label]
    return line


def column_seconds(view: FeatureView, width: int) -> FloatArray:
    """The middle of each of ``width`` columns in seconds."""
    span = view.end_s - view.edges_s[0]
    seconds: FloatArray = view.edges_s[0] + (np.arange(width) + 0.5) / width * span
    return seconds


def _resized(rows: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    taps = roi_align(len(rows), length) if len(rows) > length else linear(len(rows), length)
    return taps.apply(rows)


def _magma(values: FloatArray) -> Grid:
    at = np.clip(values, 0, 1) * (len(_MAGMA) - 1)
    low = np.minimum(at.astype(int), len(_MAGMA) - 2)
    share = (at - low)[..., None]
    colors: Grid = np.round(_MAGMA[low] * (1 - share) + _MAGMA[low + 1] * share).astype(np.uint8)
    return colors
