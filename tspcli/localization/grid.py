"""Features on the network's grid: equal cells over a video, or over windows of it.

A row of a store stands for the time of its clip's centre, in exact seconds. Between centres
features are interpolated linearly, beyond the first and the last one they stay. A cell that is
longer than the step between rows takes the mean over as many places in it as rows fall into it, so
that no row of a long video is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tspcli.errors import LocalizationError


@dataclass(frozen=True)
class Window:
    """A stretch of a video that the network sees at once.

    Attributes:
        key: The video's key in the store.
        start_s: Seconds after the video's first frame.
        duration_s: Its length; the last window may reach beyond the video.
        video_s: The video's length.
    """

    key: str
    start_s: float
    duration_s: float
    video_s: float


def windows_of(key: str, video_s: float, window_s: float | None) -> list[Window]:
    """One window over the whole video, or windows of ``window_s`` that overlap by half.

    Raises:
        LocalizationError: If the video has no length.
    """
    if not video_s > 0:
        raise LocalizationError(
            f"The video {key!r} lasts {video_s} s.",
            remedy="Check its duration in the store and in the annotations.",
        )
    if window_s is None:
        return [Window(key, 0.0, video_s, video_s)]
    count = max(1, math.ceil(video_s / (window_s / 2) - 1 - 1e-9))
    return [Window(key, index * window_s / 2, window_s, video_s) for index in range(count)]


def sample_grid(
    rows: npt.NDArray[np.float32],
    center_s: npt.NDArray[np.float64],
    window: Window,
    n_cells: int,
) -> npt.NDArray[np.float32]:
    """Features of each cell of a window.

    Args:
        rows: (N, C) features of clips.
        center_s: (N,) ascending centres of the clips in seconds.
        window: The stretch of the video.
        n_cells: T.

    Returns:
        (T, C) float32; cell i covers start + [i, i + 1) * duration / T. Cells beyond the end of
        the video are zero.

    Raises:
        LocalizationError: If the video has no rows, or infinite ones in this window.
    """
    if not len(rows):
        raise LocalizationError(
            f"The video {window.key!r} has no features.", remedy="Leave it out, or extract it."
        )
    cell_s = window.duration_s / n_cells
    step_s = (center_s[-1] - center_s[0]) / (len(rows) - 1) if len(rows) > 1 else math.inf
    per_cell = max(1, math.ceil(cell_s / step_s - 1e-9))
    places_s = window.start_s + (np.arange(n_cells * per_cell) + 0.5) * (cell_s / per_cell)
    with np.errstate(invalid="ignore"):
        sampled = _interpolate(rows, center_s, places_s)
        cells = sampled.reshape(n_cells, per_cell, -1).mean(axis=1)
    if not np.isfinite(cells).all():
        raise LocalizationError(
            f"The features of {window.key!r} are not all finite.",
            remedy="Compute them again; `tsp doctor` tells whether the store is damaged.",
        )
    beyond = window.start_s + (np.arange(n_cells) + 0.5) * cell_s >= window.video_s
    cells[beyond] = 0
    return cells.astype(np.float32, copy=False)


def mean_over(
    rows: npt.NDArray[np.float32],
    center_s: npt.NDArray[np.float64],
    start_s: Sequence[float] | npt.NDArray[np.float64],
    end_s: Sequence[float] | npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Mean of the rows whose centres lie in each segment; of the nearest row if there is none.

    Args:
        rows: (N, C).
        center_s: (N,) ascending.
        start_s: (M,) in seconds; belongs to the segment.
        end_s: (M,) in seconds; belongs to it too.

    Returns:
        (M, C) float64.
    """
    start, end = np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)
    first = np.searchsorted(center_s, start, side="left")
    last = np.searchsorted(center_s, end, side="right")
    middle = (start + end) / 2
    right = np.clip(np.searchsorted(center_s, middle), 0, len(center_s) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(middle - center_s[left] <= center_s[right] - middle, left, right)
    empty = last <= first
    first, last = np.where(empty, nearest, first), np.where(empty, nearest + 1, last)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def _interpolate(
    rows: npt.NDArray[np.float32],
    center_s: npt.NDArray[np.float64],
    places_s: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    position = np.interp(places_s, center_s, np.arange(len(center_s)))
    left = np.minimum(position.astype(np.int64), len(rows) - 1)
    right = np.minimum(left + 1, len(rows) - 1)
    share = (position - left).astype(np.float32)[:, None]
    return np.asarray(rows[left] * (1 - share) + rows[right] * share)
