"""The arithmetic of two versions of one video's rows: what is alike, and where not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tspcli.sampling.resampling import FloatArray

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
