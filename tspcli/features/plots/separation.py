"""How well features tell foreground from background, as one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tspcli.annotations import Segment
from tspcli.features.lookup import unit_rows
from tspcli.features.resampling import FloatArray

_MOST_ROWS = 4000
_BLOCK_ROWS = 512


def foreground_rows(center_s: FloatArray, segments: Sequence[Segment]) -> npt.NDArray[np.bool_]:
    """Which rows are foreground, shape (N,): those whose clip's centre lies in a segment."""
    inside = np.zeros(len(center_s), dtype=bool)
    for segment in segments:
        inside |= (center_s >= segment.start_s) & (center_s <= segment.end_s)
    return inside


def separation(
    rows: FloatArray, foreground: npt.NDArray[np.bool_], *, apart: int = 1
) -> float | None:
    """Separation of foreground and background: the silhouette of the two, by cosine distance.

    For each row, a is its mean cosine distance (1 - cosine) to the other rows of its own kind and b
    that to the rows of the other kind; its silhouette is (b - a) / max(a, b). The result is the
    mean over foreground rows and the mean over background rows, averaged, so that both kinds weigh
    the same however long they are. 1 is the most that is possible, 0 is no separation, and below 0
    rows are nearer to the other kind than to their own. As a ratio of distances it can be compared
    between encoders whose features are all more, or all less, alike.

    Pairs of rows whose clips share frames are left out of a and b, for they are alike in any case.

    Args:
        rows: Features, shape (N, D). Of more than 4000 rows, 4000 evenly spread ones are taken.
        foreground: Which are foreground, shape (N,).
        apart: From how many rows on two clips share no frame (clip length over stride, rounded up).

    Returns:
        The separation, or None if a kind has no two rows to compare.
    """
    step = -(-len(rows) // _MOST_ROWS)
    rows, foreground, apart = rows[::step], foreground[::step], -(-apart // step)
    units = unit_rows(rows.astype(np.float32))
    index = np.arange(len(units))
    scores = np.full(len(units), np.nan)
    for start in range(0, len(units), _BLOCK_ROWS):
        own = index[start : start + _BLOCK_ROWS]
        distance = 1.0 - (units[own] @ units.T).astype(np.float64)
        valid = np.abs(index[None] - own[:, None]) >= max(apart, 1)
        same = foreground[None] == foreground[own][:, None]
        within = _mean(distance, valid & same)
        between = _mean(distance, valid & ~same)
        largest = np.maximum(within, between)
        scores[own] = (between - within) / np.where(largest > 0, largest, 1.0)
    means = [scores[kind] for kind in (foreground, ~foreground)]
    means = [kind[np.isfinite(kind)] for kind in means]
    if not all(len(kind) for kind in means):
        return None
    return float(np.mean([kind.mean() for kind in means]))


def _mean(values: FloatArray, chosen: npt.NDArray[np.bool_]) -> FloatArray:
    """Means over the chosen values of each line; NaN where there is none."""
    count = chosen.sum(axis=1)
    total = np.where(chosen, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
