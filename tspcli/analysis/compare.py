"""How two stores of the same videos differ; for checking oneself against released features.

Clip features of one network are all alike in a way (they are averages of rectified activations), so
raw cosines between unrelated clips are far from 0. The difference is therefore measured twice:

* the *cosine* of row i with the row of the other store at the same place: 1 for equal rows;
* the *agreement*: the mean of the same cosine after each store's own mean over the video was
  subtracted. It is 1 for equal rows and about 0 where the two stores do not mean the same by their
  channels, which is the mark of other weights.

Both are of the whole video. A single row that differs is found by its distance, against how far
the rows of the video lie apart (:func:`tspcli.analysis.similarity.differing_rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from tspcli.analysis.similarity import (
    FEW_ROWS,
    agreement,
    best_shift,
    differing_rows,
    filled,
    length_ratio,
    not_finite_rows,
    row_cosines,
)
from tspcli.errors import StoreError
from tspcli.sampling.resampling import FloatArray, interpolate_at
from tspcli.store.store import FeatureStore
from tspcli.store.store_set import find_video, matching_keys
from tspcli.store.video_features import VideoFeatures

Verdict = Literal["same", "rows differ", "shifted", "other settings", "other weights", "not finite"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the mildest to the worst."""

SAME_COSINE = 0.99
"""Median cosine from which rows count as equal. Reduced precision keeps it above 0.999."""

EQUAL_COSINE = 0.9999
"""Median cosine from which rows count as equal whatever their agreement: a video in which nothing
moves has none, for what is left of its rows without their mean is rounding."""

SAME_AGREEMENT = 0.9
"""Agreement that equal rows have; between this and 1 lies reduced precision."""

RELATED_AGREEMENT = 0.5
"""Agreement from which the channels mean the same, though rows differ."""

RELATED_COSINE = 0.95
"""The same for videos of so few rows that subtracting the mean leaves nothing."""

LENGTH_SLACK = 0.05
"""How far from 1 the ratio of equal rows' lengths may be, by the median."""

MAX_SHIFT_S = 5.0
_MAX_SHIFT_ROWS = 100
_ROW_COUNT_SLACK = 1
_SHOWN_ROWS = 3


@dataclass(frozen=True)
class VideoComparison:
    """Two versions of one video.

    Attributes:
        key: Its key in the first store.
        n_rows: Rows in the first and in the second store.
        dims: Widths.
        cosine: Median cosine of rows at the same place; None if widths differ.
        lowest: Lowest cosine, and of which row.
        differing: The rows that differ, where the verdict is that rows differ.
        differing_s: The centres of their clips in seconds; None if the first store's are unknown.
        not_finite: Rows of the first and of the second store with values that are not finite.
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
    differing: list[int]
    differing_s: list[float] | None
    not_finite: tuple[list[int], list[int]]
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
        differences: Settings that differ, where both files state theirs.
        only_a: Videos of the first store alone.
        only_b: Videos of the second store alone.
        videos: The common videos.
        verdict: ``same`` only if every common video is; else the commonest verdict of the others,
            and of equally common ones the worst.
        counts: How often each verdict occurs.
        told: Whether both files state how they were made.
    """

    a: str
    b: str
    differences: list[str]
    only_a: list[str]
    only_b: list[str]
    videos: list[VideoComparison]
    verdict: Verdict
    counts: dict[str, int]
    told: bool

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
        StoreError: If the stores have no video in common, or the second lacks one of ``videos``.
        UsageError: If the first store lacks one of ``videos``.
    """
    pairs = matching_keys(a, b)
    common = sorted(pairs)
    if not common:
        raise StoreError(
            f"{a.path} and {b.path} have no video in common.",
            remedy=f"The first has {_some(a)}; the second {_some(b)}.",
        )
    if videos is not None:
        common = sorted({find_video(a, name).key for name in videos})
        for key in common:
            if key not in pairs:
                raise StoreError(f"{key!r} is in {a.path} alone.", remedy="Compare other videos.")
    found = [compare_videos(key, a[key], b[pairs[key]]) for key in common]
    counts = Counter(video.verdict for video in found)
    verdict = max(counts, key=lambda v: (v != "same", counts[v], VERDICTS.index(v)))
    told = bool(a.metadata.settings and b.metadata.settings)
    return Comparison(
        str(a.path),
        str(b.path),
        a.metadata.differences(b.metadata) if told else [],
        sorted(set(a) - set(pairs)),
        sorted(set(b) - set(pairs.values())),
        found,
        verdict,
        {v: counts[v] for v in VERDICTS if v in counts},
        told,
    )


def compare_videos(key: str, a: VideoFeatures, b: VideoFeatures) -> VideoComparison:
    """Compare two versions of one video.

    The verdicts: *same* if every row is, and their number to within one; *rows differ* if only a
    few are not; *shifted* if rows are the same after one version was moved; *other settings* if
    rows differ although the channels mean the same, or lie at other seconds; *other weights* if the
    channels do not mean the same; *not finite* if there are rows with values that are not finite,
    and the others are the same.

    Raises:
        StoreError: If rows cannot be read, or are not those that were written.
    """
    n_rows, dims = (a.n_rows, b.n_rows), (a.dim, b.dim)
    raw_a, raw_b = a.checked_rows(), b.checked_rows()
    odd_a, odd_b = not_finite_rows(raw_a), not_finite_rows(raw_b)
    not_finite = np.flatnonzero(odd_a).tolist(), np.flatnonzero(odd_b).tolist()

    def incomparable(verdict: Verdict, reason: str) -> VideoComparison:
        return VideoComparison(
            *(key, n_rows, dims, None, None, [], None, not_finite),
            *(None, 0, None, None, verdict, reason),
        )

    if dims[0] != dims[1]:
        return incomparable("other weights", f"widths differ: {dims[0]} and {dims[1]}")
    if not all(n_rows):
        return incomparable("other settings", "a version has no rows")
    if odd_a.all() or odd_b.all():
        return incomparable("not finite", _say_not_finite(not_finite, a, b))
    rows_a, rows_b, aligned = _aligned(a, b, filled(raw_a, odd_a), filled(raw_b, odd_b))
    meet = min(len(rows_a), len(rows_b))
    finite = ~odd_a[:meet] if aligned else ~(odd_a[:meet] | odd_b[:meet])
    if not finite.any():
        return incomparable("not finite", _say_not_finite(not_finite, a, b))
    cosines = row_cosines(rows_a, rows_b, 0)
    median = float(np.median(cosines[finite]))
    shift = 0 if median >= EQUAL_COSINE else best_shift(rows_a, rows_b, _max_shift(a))
    alike = agreement(rows_a, rows_b, shift)
    shifted = float(np.median(row_cosines(rows_a, rows_b, shift)))
    differing = np.flatnonzero(differing_rows(rows_a[:meet], rows_b[:meet]) & finite).tolist()
    verdict, reason = _judge(median, shifted, shift, alike, n_rows, aligned)
    ratio = length_ratio(rows_a[:meet], rows_b[:meet])
    if verdict == "same" and abs(ratio - 1) > LENGTH_SLACK:
        verdict = "other settings"
        reason = f"the directions are the same, but the second's rows are {ratio:.3g} times as long"
    if verdict == "same" and differing:
        verdict, reason = "rows differ", f"{_say_rows(differing, a)}, of {meet}"
    elif verdict != "same":
        differing = []
    if any(not_finite):
        worse = verdict not in ("same", "rows differ")
        said = _say_not_finite(not_finite, a, b)
        reason = f"{reason}; {said}" if verdict != "same" else said
        verdict = verdict if worse else "not finite"
    lowest = int(np.argmin(np.where(finite, cosines, np.inf)))
    padded = np.full(len(rows_a), np.nan)
    padded[:meet] = np.where(finite, cosines, np.nan)
    step = None if a.sampling is None else float(a.sampling.stride_s)
    return VideoComparison(
        key,
        n_rows,
        dims,
        median,
        (lowest, float(cosines[lowest])),
        differing,
        None if step is None else [round(float(a.center_s[row]), 6) for row in differing],
        not_finite,
        alike,
        shift,
        None if step is None else shift * step,
        shifted,
        verdict,
        reason,
        padded.tolist(),
    )


def _say_not_finite(
    not_finite: tuple[list[int], list[int]], a: VideoFeatures, b: VideoFeatures
) -> str:
    said = []
    for which, rows, video in (("first", not_finite[0], a), ("second", not_finite[1], b)):
        if rows:
            verb = "is" if len(rows) == 1 else "are"
            said.append(f"{_say_rows(rows, video)} of the {which} {verb} not finite")
    return ", ".join(said)


def _say_rows(rows: list[int], video: VideoFeatures) -> str:
    """``rows 3 (3.733 s), 7 (8.000 s), 8 (9.067 s) and 5 more``; seconds are the clips' centres."""
    seconds = None if video.sampling is None else video.center_s
    shown = [
        f"{row}" if seconds is None else f"{row} ({seconds[row]:.3f} s)"
        for row in rows[:_SHOWN_ROWS]
    ]
    more = f" and {len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {', '.join(shown)}{more}"


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
            other = f", {counts}" if n_rows[0] != n_rows[1] else ""
            return "same", f"median cosine {cosine:.5f}{other}"
        return "other settings", f"the rows are equal, but there are {counts}"
    if shift and shifted >= SAME_COSINE and equal:
        return "shifted", f"by {shift:+d} rows the median cosine is {shifted:.5f}"
    if related:
        return "other settings", (
            f"the channels mean the same, but the median cosine is {max(cosine, shifted):.3f}"
        )
    return "other weights", f"the channels mean other things (median cosine {cosine:.3f})"


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


def _some(store: FeatureStore) -> str:
    keys = list(store)[:3]
    return ", ".join(map(repr, keys)) + (" …" if len(store) > len(keys) else "")
