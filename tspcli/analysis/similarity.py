"""The arithmetic of two versions of one video's rows: what is alike, and where not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tspcli.sampling.resampling import FloatArray, interpolate_at
from tspcli.store.video_features import VideoFeatures

EQUAL_COSINE = 0.9999
"""Median cosine from which rows count as equal whatever their agreement: a video in which nothing
moves has none, for what is left of its rows without their mean is rounding."""

MAX_SHIFT_S = 5.0
_MAX_SHIFT_ROWS = 100

FEW_ROWS = 4
"""Fewer rows than these have no mean worth subtracting."""

ROW_SPREAD = 0.1
"""A row differs if it is farther from its counterpart than this share of the rows' spread about
their middle. Rows of other clips are 1.4 of it away, reduced precision moves a row by 0.02, and a
clip that starts one frame early (the official code has some) by anything from 0.1 to 1."""

ROW_NOISE = 3.0
"""... and farther than so many times what the video's rows differ by on the whole."""

ROW_LENGTH = 0.001
"""... and farther than this share of its own length: the rows of a still video differ by noise."""

FEW_ROWS_LENGTH = 0.03
"""The share of its length from which a row of a video of few rows differs."""

_SEARCH_ROWS = 2000
_SHIFT_GAIN = 0.01


@dataclass(frozen=True)
class Similarity:
    """How alike two versions of one video are.

    What compares rows is None, or empty, where the versions have no width in common or no rows that
    are finite in both.

    Attributes:
        n_rows: Rows in the first and in the second version.
        dims: Widths.
        not_finite: Rows of each version with values that are not finite.
        aligned: How the second version was brought to the times of the first, in words; None if
            rows were compared one by one.
        n_compared: Rows of the first version that have a counterpart.
        cosines: Cosine of each row of the first version, NaN where it has no finite counterpart.
        cosine: Their median.
        lowest: The lowest, and of which row.
        differing: Rows that differ by more than reduced precision explains.
        shift_rows: By how many rows the second version lags, at best.
        shifted_cosine: Median cosine at that shift.
        agreement: Mean cosine after subtracting the means, at that shift; None for few rows.
        length_ratio: How many times as long as the first version's rows the second's are.
    """

    n_rows: tuple[int, int]
    dims: tuple[int, int]
    not_finite: tuple[list[int], list[int]]
    aligned: str | None = None
    n_compared: int = 0
    cosines: tuple[float, ...] = ()
    cosine: float | None = None
    lowest: tuple[int, float] | None = None
    differing: tuple[int, ...] = ()
    shift_rows: int = 0
    shifted_cosine: float | None = None
    agreement: float | None = None
    length_ratio: float = 1.0


def measure(a: VideoFeatures, b: VideoFeatures) -> Similarity:
    """Measure how alike two versions of one video are.

    Raises:
        StoreError: If rows cannot be read, or are not those that were written.
    """
    n_rows, dims = (a.n_rows, b.n_rows), (a.dim, b.dim)
    raw_a, raw_b = a.checked_rows(), b.checked_rows()
    odd_a, odd_b = not_finite_rows(raw_a), not_finite_rows(raw_b)
    not_finite = np.flatnonzero(odd_a).tolist(), np.flatnonzero(odd_b).tolist()
    nothing = Similarity(n_rows, dims, not_finite)
    if dims[0] != dims[1] or odd_a.all() or odd_b.all():
        return nothing
    rows_a, rows_b, aligned = _aligned(a, b, filled(raw_a, odd_a), filled(raw_b, odd_b))
    meet = min(len(rows_a), len(rows_b))
    finite = ~odd_a[:meet] if aligned else ~(odd_a[:meet] | odd_b[:meet])
    if not finite.any():
        return nothing
    cosines = np.full(len(rows_a), np.nan)
    cosines[:meet] = np.where(finite, row_cosines(rows_a, rows_b, 0), np.nan)
    median = float(np.nanmedian(cosines))
    lowest = int(np.nanargmin(cosines))
    shift = 0 if median >= EQUAL_COSINE else best_shift(rows_a, rows_b, _max_shift(a))
    return Similarity(
        n_rows,
        dims,
        not_finite,
        aligned,
        n_compared=meet,
        cosines=tuple(cosines.tolist()),
        cosine=median,
        lowest=(lowest, float(cosines[lowest])),
        differing=tuple(
            np.flatnonzero(differing_rows(rows_a[:meet], rows_b[:meet]) & finite).tolist()
        ),
        shift_rows=shift,
        shifted_cosine=float(np.median(row_cosines(rows_a, rows_b, shift))),
        agreement=agreement(rows_a, rows_b, shift),
        length_ratio=length_ratio(rows_a[:meet], rows_b[:meet]),
    )


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row of zeros stays zeros, one that is not finite becomes NaN."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    finite = np.isfinite(norms)
    divisors = np.where(finite & (norms > 0), norms, 1)
    scaled: FloatArray = np.where(finite, rows, np.nan) / divisors
    return scaled.astype(rows.dtype)


def differing_rows(a: FloatArray, b: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows differ by more than reduced precision explains.

    Lengths count here too: a row that was scaled has a cosine of 1.

    Args:
        a: Rows of a video, shape (N, D).
        b: The same rows of the other version, shape (N, D).

    Returns:
        Shape (N,).
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    distance = np.linalg.norm(a - b, axis=1)
    length = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    if len(a) < FEW_ROWS:
        return distance > FEW_ROWS_LENGTH * length
    spread = float(np.median(np.linalg.norm(a - np.median(a, axis=0), axis=1)))
    least = max(ROW_SPREAD * spread, ROW_NOISE * float(np.median(distance)))
    return distance > np.maximum(ROW_LENGTH * length, least)


def length_ratio(a: FloatArray, b: FloatArray) -> float:
    """How many times as long as ``a``'s rows ``b``'s are, by the median; 1 for rows of zeros."""
    lengths = (
        np.linalg.norm(a.astype(np.float64), axis=1),
        np.linalg.norm(b.astype(np.float64), axis=1),
    )
    known = (lengths[0] > 0) & (lengths[1] > 0)
    return float(np.median(lengths[1][known] / lengths[0][known])) if known.any() else 1.0


def not_finite_rows(rows: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows have a value that is not finite, shape (N,)."""
    return np.asarray(~np.isfinite(rows).all(axis=1))


def filled(rows: FloatArray, odd: npt.NDArray[np.bool_]) -> FloatArray:
    """Rows with those that are not finite replaced by the mean of the others."""
    if not odd.any():
        return rows
    filled = rows.copy()
    filled[odd] = rows[~odd].mean(axis=0)
    return filled


def row_cosines(a: FloatArray, b: FloatArray, shift: int) -> FloatArray:
    """The cosine of ``a[i]`` and ``b[i + shift]`` for each row that has a counterpart."""
    a, b = _overlap(a, b, shift)
    cosines: FloatArray = (unit_rows(a.astype(np.float64)) * unit_rows(b.astype(np.float64))).sum(
        axis=1
    )
    # Two rows of zeros are equal.
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, cosines)


def _overlap(a: FloatArray, b: FloatArray, shift: int) -> tuple[FloatArray, FloatArray]:
    """The rows of both that meet when ``b[i + shift]`` is aligned with ``a[i]``."""
    first = max(0, -shift)
    count = max(0, min(len(a) - first, len(b) - first - shift))
    return a[first : first + count], b[first + shift : first + shift + count]


def best_shift(a: FloatArray, b: FloatArray, most: int) -> int:
    """The shift at which the rows, without their means, are most alike; 0 unless another is better.

    Means are subtracted because with them every row of some encoders is like every other.
    """
    a, b = a[:_SEARCH_ROWS].astype(np.float64), b[: _SEARCH_ROWS + most].astype(np.float64)
    shorter = min(len(a), len(b))
    if shorter >= FEW_ROWS:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    units_a, units_b = unit_rows(a), unit_rows(b)
    best, best_score = 0, -np.inf
    for shift in sorted(range(-most, most + 1), key=abs):
        x, y = _overlap(units_a, units_b, shift)
        # A shift that leaves less than half of the rows shows nothing.
        if len(x) < max(1, shorter / 2):
            continue
        score = float((x * y).sum(axis=1).mean())
        if score > best_score + (_SHIFT_GAIN if best_score > -np.inf else 0):
            best, best_score = shift, score
    return best


def agreement(a: FloatArray, b: FloatArray, shift: int) -> float | None:
    """Mean cosine of rows without their means, at a shift; None where nothing is left of them."""
    a, b = _overlap(a.astype(np.float64), b.astype(np.float64), shift)
    if len(a) < FEW_ROWS:
        return None
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (norms > 0).any():
        return None
    # Weighted by length: rows near the mean have a direction that rounding decides.
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def _aligned(
    a: VideoFeatures, b: VideoFeatures, rows_a: FloatArray, rows_b: FloatArray
) -> tuple[FloatArray, FloatArray, str | None]:
    """Both versions' rows, the second's brought to the first's seconds if their rhythms differ."""
    first, second = a.sampling, b.sampling
    if first is not None and second is not None:
        rhythm = (first.stride_s, first.clip_duration_s)
        if rhythm == (second.stride_s, second.clip_duration_s):
            return rows_a, rows_b, None
        times = a.center_s
        inside = times <= b.center_s[-1] + float(second.stride_s)
        position = (times[inside] - b.center_s[0]) / float(second.stride_s)
        how = (
            f"a clip of {float(first.clip_duration_s):.3f} s every {float(first.stride_s):.3f} s "
            f"and one of {float(second.clip_duration_s):.3f} s every "
            f"{float(second.stride_s):.3f} s"
        )
        if not inside.any():
            position, inside = np.zeros(1), np.arange(len(rows_a)) < 1
        return rows_a[inside], interpolate_at(len(rows_b), position).apply(rows_b), how
    ratio = len(rows_b) / len(rows_a)
    if len(rows_a) >= FEW_ROWS and not 2 / 3 < ratio < 3 / 2:
        # The stride is unknown; so different a number of rows can only be another one.
        position = (np.arange(len(rows_a)) + 0.5) * ratio - 0.5
        how = f"one has {max(ratio, 1 / ratio):.2f} times as many"
        return rows_a, interpolate_at(len(rows_b), position).apply(rows_b), how
    return rows_a, rows_b, None


def _max_shift(a: VideoFeatures) -> int:
    step = 16 / 15 if a.sampling is None else float(a.sampling.stride_s)
    return min(_MAX_SHIFT_ROWS, max(1, round(MAX_SHIFT_S / step)))
