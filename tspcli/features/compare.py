"""How two stores of the same videos differ; for checking oneself against released features.

Clip features of one network are all alike in a way (they are averages of rectified activations), so
raw cosines between unrelated clips are far from 0. What tells apart is therefore measured twice:

* the *cosine* of row i with the row of the other store at the same place: 1 for equal rows;
* the *agreement*: the mean of the same cosine after each store's own mean over the video was
  subtracted. It is 1 for equal rows and about 0 where the two stores do not mean the same by their
  channels, which is the mark of other weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from tspcli.errors import StoreError
from tspcli.features.lookup import matching_keys, unit_rows
from tspcli.features.resampling import FloatArray, interpolate_at
from tspcli.features.store import FeatureStore, VideoFeatures

Verdict = Literal["same", "shifted", "other settings", "other weights"]
VERDICTS: tuple[Verdict, ...] = ("same", "shifted", "other settings", "other weights")

SAME_COSINE = 0.99
"""Median cosine from which rows count as equal. Reduced precision keeps it above 0.999; the few
rows that the official code starts one frame early do not move a median."""

EQUAL_COSINE = 0.9999
"""Median cosine from which rows count as equal whatever their agreement: a video in which nothing
moves has none, for what is left of its rows without their mean is rounding."""

SAME_AGREEMENT = 0.9
"""Agreement that equal rows have; between this and 1 lies reduced precision."""

RELATED_AGREEMENT = 0.5
"""Agreement from which the channels mean the same, though rows differ."""

RELATED_COSINE = 0.95
"""The same for videos of so few rows that subtracting the mean leaves nothing."""

MAX_SHIFT_S = 5.0
_MAX_SHIFT_ROWS = 100
_FEW_ROWS = 4
_SEARCH_ROWS = 2000
_ROW_COUNT_SLACK = 1
_SHIFT_GAIN = 0.01


@dataclass(frozen=True)
class VideoComparison:
    """Two versions of one video.

    Attributes:
        key: Its key in the first store.
        n_rows: Rows in the first and in the second store.
        dims: Widths.
        cosine: Median cosine of rows at the same place; None if widths differ.
        lowest: Lowest cosine, and of which row.
        differing: How many rows have a cosine below :data:`SAME_COSINE`.
        agreement: Mean cosine after subtracting the means, at the best shift; None if unknown.
        shift_rows: By how many rows the second store lags, at best: its row ``i + shift`` is like
            row i of the first.
        shift_s: The same in seconds, None if the first store's seconds are unknown.
        shifted_cosine: Median cosine at that shift.
        verdict: What it looks like.
        reason: Why.
        cosines: Cosine of each row of the first store, NaN where the second has none.
    """

    key: str
    n_rows: tuple[int, int]
    dims: tuple[int, int]
    cosine: float | None
    lowest: tuple[int, float] | None
    differing: int
    agreement: float | None
    shift_rows: int
    shift_s: float | None
    shifted_cosine: float | None
    verdict: Verdict
    reason: str
    cosines: list[float] = field(repr=False, default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Two stores.

    Attributes:
        a: The first file.
        b: The second file.
        differences: Settings that differ, where both files tell theirs.
        only_a: Videos of the first store alone.
        only_b: Videos of the second store alone.
        videos: The common videos.
        verdict: The commonest verdict over videos; of equally common ones the worse.
        counts: How often each verdict occurs.
    """

    a: str
    b: str
    differences: list[str]
    only_a: list[str]
    only_b: list[str]
    videos: list[VideoComparison]
    verdict: Verdict
    counts: dict[str, int]

    @property
    def all_same(self) -> bool:
        """Whether both hold the same videos, and every one is the same."""
        alone = self.only_a or self.only_b
        return not alone and self.counts.get("same", 0) == len(self.videos)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values; cosines that do not exist are None."""
        plain = asdict(self)
        for video in plain["videos"]:
            video["cosines"] = [None if np.isnan(c) else round(c, 6) for c in video["cosines"]]
        return plain


def compare_stores(
    a: FeatureStore, b: FeatureStore, *, videos: Sequence[str] | None = None
) -> Comparison:
    """Compare the videos that two stores have in common. One video is in memory at a time.

    Keys with and without ``v_`` meet.

    Args:
        a: The first store.
        b: The second store.
        videos: Only these videos.

    Raises:
        StoreError: If the stores have no video in common.
    """
    keys_a, keys_b = matching_keys([a, b])
    common = sorted(set(keys_a) & set(keys_b))
    if videos is not None:
        wanted = {name.removeprefix("v_") for name in videos} | set(videos)
        common = [key for key in common if key in wanted]
    if not common:
        raise StoreError(
            f"{a.path} and {b.path} have no video in common"
            + (" among those asked for." if videos is not None else "."),
            remedy=f"The first has {_some(a)}; the second {_some(b)}.",
        )
    found = [compare_videos(keys_a[key], a[keys_a[key]], b[keys_b[key]]) for key in common]
    counts = Counter(video.verdict for video in found)
    verdict = max(counts, key=lambda v: (counts[v], VERDICTS.index(v)))
    told = a.metadata.settings and b.metadata.settings
    return Comparison(
        str(a.path),
        str(b.path),
        a.metadata.differences(b.metadata) if told else [],
        sorted(keys_a[key] for key in set(keys_a) - set(keys_b)),
        sorted(keys_b[key] for key in set(keys_b) - set(keys_a)),
        found,
        verdict,
        {str(verdict): count for verdict, count in counts.items()},
    )


def compare_videos(key: str, a: VideoFeatures, b: VideoFeatures) -> VideoComparison:
    """Compare two versions of one video.

    The verdicts: *same* if the rows are, and their number to within one; *shifted* if they are
    after one was moved; *other settings* if rows differ although the channels mean the same, or
    lie at other seconds; *other weights* if the channels do not mean the same.
    """
    n_rows, dims = (a.n_rows, b.n_rows), (a.dim, b.dim)
    if dims[0] != dims[1]:
        reason = f"widths differ: {dims[0]} and {dims[1]}"
        return VideoComparison(
            key, n_rows, dims, None, None, 0, None, 0, None, None, "other weights", reason
        )
    if not all(n_rows):
        reason = "a version has no rows"
        return VideoComparison(
            key, n_rows, dims, None, None, 0, None, 0, None, None, "other settings", reason
        )
    rows_a, rows_b, aligned = _aligned(a, b)
    cosines = _row_cosines(rows_a, rows_b, 0)
    median = float(np.median(cosines))
    shift = 0 if median >= EQUAL_COSINE else _best_shift(rows_a, rows_b, _max_shift(a))
    agreement = _agreement(rows_a, rows_b, shift)
    shifted = float(np.median(_row_cosines(rows_a, rows_b, shift)))
    verdict, reason = _judge(median, shifted, shift, agreement, n_rows, aligned)
    lowest = int(np.argmin(cosines))
    padded = np.full(len(rows_a), np.nan)
    padded[: len(cosines)] = cosines
    step = None if a.sampling is None else float(a.sampling.stride_s)
    return VideoComparison(
        key,
        n_rows,
        dims,
        median,
        (lowest, float(cosines[lowest])),
        int((cosines < SAME_COSINE).sum()),
        agreement,
        shift,
        None if step is None else shift * step,
        shifted,
        verdict,
        reason,
        padded.tolist(),
    )


def _judge(
    cosine: float,
    shifted: float,
    shift: int,
    agreement: float | None,
    n_rows: tuple[int, int],
    aligned: str | None,
) -> tuple[Verdict, str]:
    counts = f"{n_rows[0]} and {n_rows[1]} rows"
    related = agreement is not None and agreement >= RELATED_AGREEMENT
    if agreement is None:
        related = max(cosine, shifted) >= RELATED_COSINE
    if aligned is not None:
        if related:
            return "other settings", f"{counts}, {aligned}"
        return "other weights", f"{counts}, {aligned}, and the channels mean other things"
    equal = agreement is None or agreement >= SAME_AGREEMENT
    if cosine >= EQUAL_COSINE or (cosine >= SAME_COSINE and equal and not shift):
        if abs(n_rows[0] - n_rows[1]) <= _ROW_COUNT_SLACK:
            return "same", f"median cosine {cosine:.5f}"
        return "other settings", f"the rows are equal, but there are {counts}"
    if shift and shifted >= SAME_COSINE and equal:
        return "shifted", f"by {shift:+d} rows the median cosine is {shifted:.5f}"
    if related:
        return "other settings", (
            f"the channels mean the same, but the median cosine is {max(cosine, shifted):.3f}"
        )
    return "other weights", f"the channels mean other things (median cosine {cosine:.3f})"


def _aligned(a: VideoFeatures, b: VideoFeatures) -> tuple[FloatArray, FloatArray, str | None]:
    """Both versions' rows, the second's brought to the first's seconds if their rhythms differ."""
    rows_a, rows_b = a.rows, b.rows
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
    if len(rows_a) >= _FEW_ROWS and not 2 / 3 < ratio < 3 / 2:
        # Nobody tells the rhythm; as many rows as that can only be another one.
        position = (np.arange(len(rows_a)) + 0.5) * ratio - 0.5
        how = f"one has {max(ratio, 1 / ratio):.2f} times as many"
        return rows_a, interpolate_at(len(rows_b), position).apply(rows_b), how
    return rows_a, rows_b, None


def _row_cosines(a: FloatArray, b: FloatArray, shift: int) -> FloatArray:
    a, b = _overlap(a, b, shift)
    cosines: FloatArray = (unit_rows(a.astype(np.float64)) * unit_rows(b.astype(np.float64))).sum(
        axis=1
    )
    # Two rows of zeros are equal.
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, cosines)


def _overlap(a: FloatArray, b: FloatArray, shift: int) -> tuple[FloatArray, FloatArray]:
    """The rows of both that meet when ``b[i + shift]`` is put beside ``a[i]``."""
    first = max(0, -shift)
    count = max(0, min(len(a) - first, len(b) - first - shift))
    return a[first : first + count], b[first + shift : first + shift + count]


def _max_shift(a: VideoFeatures) -> int:
    step = 16 / 15 if a.sampling is None else float(a.sampling.stride_s)
    return min(_MAX_SHIFT_ROWS, max(1, round(MAX_SHIFT_S / step)))


def _best_shift(a: FloatArray, b: FloatArray, most: int) -> int:
    """The shift at which the rows, without their means, are most alike; 0 unless another is better.

    Means are subtracted because with them every row of some encoders is like every other.
    """
    a, b = a[:_SEARCH_ROWS].astype(np.float64), b[: _SEARCH_ROWS + most].astype(np.float64)
    shorter = min(len(a), len(b))
    if shorter >= _FEW_ROWS:
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


def _agreement(a: FloatArray, b: FloatArray, shift: int) -> float | None:
    a, b = _overlap(a.astype(np.float64), b.astype(np.float64), shift)
    if len(a) < _FEW_ROWS:
        return None
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (norms > 0).any():
        return None
    # Weighted by length: rows near the mean have a direction that rounding decides.
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def _some(store: FeatureStore) -> str:
    keys = list(store)[:3]
    return ", ".join(map(repr, keys)) + (" …" if len(store) > len(keys) else "")
