"""What the network is to say: boundary probabilities, and the IoU of every proposal.

The grid has T cells and T + 1 lines between them; times here are in cells, line k at time k.
Output i of the start curve speaks of line i, output i of the end curve of line i + 1, so that
proposal (d, i), which covers [i, i + d + 1], reads ``start[i]`` and ``end[i + d]``: every boundary
that a proposal can have stands on a line, the video's own ends among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tspcli.annotations import Segment
from tspcli.localization.grid import Window
from tspcli.localization.settings import LabelConfig

FloatArray = npt.NDArray[np.float32]


def actions_in_window(
    segments: Sequence[Segment], window: Window, n_cells: int, config: LabelConfig
) -> npt.NDArray[np.float64]:
    """The actions that belong to a window, clipped to it, in cells.

    Returns:
        (G, 2) of start and end, 0 to ``n_cells``. Actions without length inside the window are
        left out, as are those of which too little lies in it.
    """
    found = []
    end_s = min(window.start_s + window.duration_s, window.video_s)
    for segment in segments:
        # An annotation may reach beyond the video; only what lies in the video can be covered.
        start, end = max(segment.start_s, 0.0), min(segment.end_s, window.video_s)
        inside_start, inside_end = max(start, window.start_s), min(end, end_s)
        if inside_end <= inside_start:
            continue
        if inside_end - inside_start >= config.window_coverage * (end - start):
            found.append((inside_start - window.start_s, inside_end - window.start_s))
    scale = n_cells / window.duration_s
    return np.array(found, dtype=np.float64).reshape(-1, 2) * scale


def boundary_labels(
    actions: npt.NDArray[np.float64], n_cells: int, config: LabelConfig
) -> tuple[FloatArray, FloatArray]:
    """How far each line lies in the region around a start, and around an end.

    A line's own region reaches half a cell to both sides; its label is the share of that which the
    best region covers (the paper's overlap ratio IoR).

    Args:
        actions: (G, 2) in cells.
        n_cells: T.
        config: The regions.

    Returns:
        Starts at lines 0..T-1 and ends at lines 1..T, each (T,), 0..1.
    """
    half = np.maximum(
        config.region_ratio * (actions[:, 1] - actions[:, 0]), config.region_min_cells
    )
    lines = np.arange(n_cells, dtype=np.float64)
    return (
        _covered(lines, actions[:, 0], half),
        _covered(lines + 1, actions[:, 1], half),
    )


def iou_map(actions: npt.NDArray[np.float64], n_cells: int, n_durations: int) -> FloatArray:
    """The largest IoU of every proposal with an action.

    Args:
        actions: (G, 2) in cells.
        n_cells: T.
        n_durations: D.

    Returns:
        (D, T): entry (d, i) is of the proposal [i, i + d + 1]; 0 where it leaves the grid.
    """
    start = np.arange(n_cells, dtype=np.float64)[None, :]
    length = np.arange(1, n_durations + 1, dtype=np.float64)[:, None]
    best = np.zeros((n_durations, n_cells))
    for action_start, action_end in actions:
        shared = np.minimum(start + length, action_end) - np.maximum(start, action_start)
        shared = np.maximum(shared, 0.0)
        best = np.maximum(best, shared / (length + (action_end - action_start) - shared))
    best[~valid_proposals(n_cells, n_durations)] = 0
    return best.astype(np.float32)


def valid_proposals(n_cells: int, n_durations: int) -> npt.NDArray[np.bool_]:
    """(D, T): whether proposal (d, i) ends on the grid."""
    ends = np.arange(n_cells)[None, :] + np.arange(1, n_durations + 1)[:, None]
    return np.asarray(ends <= n_cells)


def _covered(
    lines: npt.NDArray[np.float64], middles: npt.NDArray[np.float64], half: npt.NDArray[np.float64]
) -> FloatArray:
    if not len(middles):
        return np.zeros(len(lines), dtype=np.float32)
    low = np.maximum(lines[:, None] - 0.5, middles - half)
    high = np.minimum(lines[:, None] + 0.5, middles + half)
    return np.maximum(high - low, 0.0).max(axis=1).astype(np.float32)
