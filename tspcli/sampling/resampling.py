"""Bringing a video's rows to another number of rows, and knowing where in time the new ones lie.

Every method here is linear: a new row is a weighted sum of old ones, so each is expressed as
:class:`Taps`, and what it does to time follows from what it does to the rows' centre seconds.
Numpy alone; nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.errors import UsageError

FloatArray = npt.NDArray[np.floating[Any]]

_BLOCK_ROWS = 2048
"""New rows computed at a time; bounds the float64 memory besides the result."""

_EDGE = 1e-4
"""How far BMN's pooling stays away from the first and the last snippet's centre."""


@dataclass(frozen=True)
class Taps:
    """New rows as weighted sums of old rows.

    Attributes:
        index: Old rows, shape (T, K), int64.
        weight: Their weights, shape (T, K), float64. They sum to 1 in each row, or to 0 where a
            method defines a new row as zeros.
    """

    index: npt.NDArray[np.int64]
    weight: FloatArray

    @property
    def n_rows(self) -> int:
        """T, the number of new rows."""
        return int(self.index.shape[0])

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """The new rows, shape (T, D), float32, of ``rows`` of shape (N, D).

        Sums are formed in float64, as many rows at a time as keeps memory bounded.
        """
        out = np.empty((self.n_rows, rows.shape[1]), dtype=np.float32)
        for start in range(0, self.n_rows, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            index, weight = self.index[block], self.weight[block]
            total = rows[index[:, 0]].astype(np.float64) * weight[:, :1]
            for k in range(1, index.shape[1]):
                # A tap of weight 0 is padding; skipping it keeps an infinite row out of others.
                used = np.flatnonzero(weight[:, k])
                total[used] += rows[index[used, k]] * weight[used, k, None]
            out[block] = total
        return out

    def times_s(self, centers_s: FloatArray) -> FloatArray:
        """The seconds that each new row shows, shape (T,): the mean of its rows' centres.

        NaN where the row is zeros and shows nothing.
        """
        shown = (self.weight * centers_s[self.index]).sum(axis=1)
        return np.where(self.weight.sum(axis=1) > 0.5, shown, np.nan)


def interpolate_at(n_rows: int, positions: npt.ArrayLike) -> Taps:
    """Linear interpolation at fractional row positions; beyond the ends the end rows repeat.

    Args:
        n_rows: N, the number of old rows.
        positions: Where to sample, shape (T,); 0 is the first row, N - 1 the last.
    """
    clipped = np.clip(np.asarray(positions, dtype=np.float64), 0, n_rows - 1)
    low = np.minimum(np.floor(clipped).astype(np.int64), max(n_rows - 2, 0))
    high = np.minimum(low + 1, n_rows - 1)
    share = clipped - low
    return Taps(np.stack([low, high], axis=1), np.stack([1 - share, share], axis=1))


def linear(n_rows: int, length: int) -> Taps:
    """Half-pixel linear resize, that of ``torch.nn.functional.interpolate(mode="linear")``.

    New row j lies at old position ``(j + 0.5) * N / T - 0.5``. This is what TSP's authors did for
    G-TAD and BMN and what G-TAD and ActionFormer do when they load. No antialiasing: a long video
    is subsampled.
    """
    _check(n_rows, length)
    return interpolate_at(n_rows, (np.arange(length) + 0.5) * (n_rows / length) - 0.5)


def centers(n_rows: int, first_s: float, step_s: float, times_s: npt.ArrayLike) -> Taps:
    """Linear interpolation at given seconds between the rows' clip centres.

    Exact in time from the first to the last centre; before and after, the end rows repeat.

    Args:
        n_rows: N, the number of old rows.
        first_s: Centre of the first row's clip in seconds.
        step_s: Seconds from one row's centre to the next.
        times_s: When to sample, seconds, shape (T,).
    """
    times = np.asarray(times_s, dtype=np.float64)
    _check(n_rows, len(times))
    return interpolate_at(n_rows, (times - first_s) / step_s)


def bin_centers_s(length: int, span_s: float) -> FloatArray:
    """The middles of ``length`` equal bins of a span, in seconds: ``(j + 0.5) / T * span``."""
    return (np.arange(length) + 0.5) * (span_s / length)


def roi_align(n_rows: int, length: int) -> Taps:
    """Torchvision's ``roi_align`` over [0, N] (aligned, adaptive sampling), as OpenTAD resizes.

    Each of the T bins is sampled at ``ceil(N / T)`` evenly spaced points whose interpolated values
    are averaged, so shrinking is antialiased; enlarging equals :func:`linear`.
    """
    return roi_align_over(n_rows, n_rows, length)


def roi_align_over(n_rows: int, span: float, length: int) -> Taps:
    """:func:`roi_align` over [0, span] instead of [0, N]; OpenTAD rounds N to half precision."""
    _check(n_rows, length)
    n_points = math.ceil(span / length)
    points = np.arange(length)[:, None] + (np.arange(n_points)[None] + 0.5) / n_points
    return _mean_of_points(n_rows, points * (span / length) - 0.5)


def bmn_pool(n_rows: int, length: int) -> Taps:
    """The pooling of the features that BMN was published with.

    Snippet centres lie at 0.5, 1.5 … of a span of N; each of T equal bins, cut to the stretch from
    the first to the last centre, is sampled at its two ends and its middle, and the three are
    averaged. A bin wholly outside that stretch becomes zeros. One row is repeated T times.
    """
    _check(n_rows, length)
    if n_rows == 1:
        return interpolate_at(1, np.zeros(length))
    edges = np.arange(length + 1) * (n_rows / length)
    first, last = 0.5, n_rows - 0.5
    low = np.maximum(edges[:-1], first + _EDGE)
    high = np.minimum(edges[1:], last - _EDGE)
    points = np.stack([low, (low + high) / 2, high], axis=1) - 0.5
    taps = _mean_of_points(n_rows, points)
    outside = (high < first) | (low > last)
    return Taps(taps.index, np.where(outside[:, None], 0.0, taps.weight))


def cell_means(n_rows: int, first_s: float, step_s: float, cell_s: float, n_cells: int) -> Taps:
    """Averages over consecutive cells of ``cell_s`` seconds, the first starting at 0 s.

    The rows are joined by straight lines between their clip centres, and each cell gets the exact
    mean of that curve over its seconds. A cell between the first and the last centre therefore
    shows its own middle, which averaging whole rows would miss by up to half a row. Before the
    first and after the last centre the end rows are taken to continue.

    Args:
        n_rows: N, the number of old rows.
        first_s: Centre of the first row's clip in seconds.
        step_s: Seconds from one row's centre to the next.
        cell_s: Seconds per cell.
        n_cells: How many cells.
    """
    _check(n_rows, n_cells)
    edges = (np.arange(n_cells + 1) * cell_s - first_s) / step_s
    low, high = edges[:-1, None], edges[1:, None]
    first = np.clip(np.floor(low), 0, n_rows - 1).astype(np.int64)
    index = first + np.arange(int(np.ceil(cell_s / step_s)) + 2)[None]
    weight = (_share_until(high, index, n_rows) - _share_until(low, index, n_rows)) / (high - low)
    return Taps(np.minimum(index, n_rows - 1), np.where(index < n_rows, weight, 0.0))


def nearest_by_ends(n_rows: int, length: int) -> Taps:
    """Nearest row of ``length`` points spread from the first to the last row, as PDVC resizes."""
    _check(n_rows, length)
    positions = np.arange(length) * ((n_rows - 1) / max(length - 1, 1))
    # Halves go down, as in scipy's interp1d(kind="nearest").
    index = np.ceil(positions - 0.5).astype(np.int64).clip(0, n_rows - 1)
    return Taps(index[:, None], np.ones((length, 1)))


BY_LENGTH: dict[str, Callable[[int, int], Taps]] = {
    "linear": linear,
    "bmn-pool": bmn_pool,
    "roi-align": roi_align,
}
"""The methods that need no seconds: (number of rows, length) to :class:`Taps`."""

METHODS = ("linear", "centers", "bmn-pool", "roi-align")


def _mean_of_points(n_rows: int, positions: FloatArray) -> Taps:
    """Average of the interpolated values at P positions a row, shape (T, P)."""
    length, n_points = positions.shape
    flat = interpolate_at(n_rows, positions.ravel())
    return Taps(flat.index.reshape(length, -1), flat.weight.reshape(length, -1) / n_points)


def _share_until(x: FloatArray, index: npt.NDArray[np.int64], n_rows: int) -> FloatArray:
    """Antiderivative at row position ``x`` of the weight that row ``index`` has at each position.

    A row weighs 1 at its own position and falls to 0 at its neighbours'; the first row continues
    before its position and the last one after it.
    """
    offset = x - index
    inside = np.clip(offset, -1.0, 1.0)
    rising = np.minimum(inside, 0.0)
    falling = np.maximum(inside, 0.0)
    before = np.where(index == 0, np.minimum(offset, 0.0), (rising + 1) ** 2 / 2)
    after = np.where(index == n_rows - 1, np.maximum(offset, 0.0), falling - falling**2 / 2)
    return before + after


def _check(n_rows: int, length: int) -> None:
    if n_rows < 1:
        raise UsageError("A video without rows cannot be resized.")
    if length < 1:
        raise UsageError(
            f"The number of rows must be at least 1, not {length}.", option="length", value=length
        )
