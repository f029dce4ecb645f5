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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from tspcli.analysis.inspect import clip_rows
from tspcli.analysis.plot_data import foreground_rows, separation
from tspcli.analysis.similarity import EQUAL_COSINE, Similarity, measure
from tspcli.annotations import AnnotatedVideo
from tspcli.core.video_names import pair_names
from tspcli.errors import StoreError
from tspcli.store.store import FeatureStore
from tspcli.store.store_set import find_video, matching_keys
from tspcli.store.video_features import VideoFeatures

Verdict = Literal[
    "same",
    "rows differ",
    "shifted",
    "other scale",
    "other times",
    "other preprocessing",
    "other weights",
    "not finite",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the mildest to the worst."""

SAME_COSINE = 0.99
"""Median cosine from which rows count as equal. Reduced precision keeps it above 0.999."""

SAME_AGREEMENT = 0.9
"""Least agreement of equal rows; reduced precision accounts for the rest up to 1."""

RELATED_AGREEMENT = 0.5
"""Agreement from which the channels mean the same, though rows differ."""

RELATED_COSINE = 0.95
"""The same for videos of so few rows that subtracting the mean leaves nothing."""

LENGTH_SLACK = 0.05
"""How far from 1 the ratio of equal rows' lengths may be, by the median."""

_WEIGHTS = {"backbone", "weights_sha256"}
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
        settings_known: Whether both files state how they were made.
        separations: For each store, the mean separation of foreground and background over the
            videos where both have one (:func:`tspcli.analysis.plot_data.separation`); None
            without annotations.
        n_separated: The number of those videos.
    """

    a: str
    b: str
    differences: list[str]
    only_a: list[str]
    only_b: list[str]
    videos: list[VideoComparison]
    verdict: Verdict
    counts: dict[str, int]
    settings_known: bool
    separations: tuple[float, float] | None = None
    n_separated: int = 0

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
    a: FeatureStore,
    b: FeatureStore,
    *,
    videos: Sequence[str] | None = None,
    annotated: Mapping[str, AnnotatedVideo] | None = None,
) -> Comparison:
    """Compare the videos that two stores have in common. One video is in memory at a time.

    Keys with and without ``v_`` meet.

    Args:
        a: The first store.
        b: The second store.
        videos: Only these videos.
        annotated: Annotations, by which separation is measured.

    Raises:
        StoreError: If the stores have no video in common, the second lacks one of ``videos``, or
            the times of annotated rows are unknown.
        UsageError: If the first store lacks one of ``videos``.
    """
    pairs = matching_keys(a, b)
    common = sorted(pairs)
    if not common:
        raise StoreError(
            f"{a.path} and {b.path} have no video in common.",
            remedy=f"The first has {_some(a)}; the second {_some(b)}.",
            path=b.path,
        )
    if videos is not None:
        common = sorted({find_video(a, name).key for name in videos})
        for key in common:
            if key not in pairs:
                raise StoreError(f"{key!r} is in {a.path} alone.", path=b.path, value=key)
    known = bool(a.metadata.settings and b.metadata.settings)
    differences = a.metadata.differences(b.metadata) if known else []
    differing = {text.split(":")[0].split(".")[0] for text in differences}
    names = pair_names(common, annotated or {})
    found, separations = [], []
    for key in common:
        first, second = a[key], b[pairs[key]]
        found.append(compare_videos(key, first, second, differing=differing))
        if annotated and key in names:
            both = [_separation(video, annotated[names[key]]) for video in (first, second)]
            separations += [both] if None not in both else []
    counts = Counter(video.verdict for video in found)
    verdict = max(counts, key=lambda v: (v != "same", counts[v], VERDICTS.index(v)))
    means = np.mean(np.array(separations, dtype=float), axis=0) if separations else None
    return Comparison(
        str(a.path),
        str(b.path),
        differences,
        sorted(set(a) - set(pairs)),
        sorted(set(b) - set(pairs.values())),
        found,
        verdict,
        {v: counts[v] for v in VERDICTS if v in counts},
        known,
        None if means is None else (float(means[0]), float(means[1])),
        len(separations),
    )


def _separation(video: VideoFeatures, annotated: AnnotatedVideo) -> float | None:
    """How well a store's rows of a video separate foreground from background."""
    foreground = foreground_rows(video.center_s, annotated.segments)
    return separation(video.rows, foreground, apart=clip_rows(video))


def compare_videos(
    key: str, a: VideoFeatures, b: VideoFeatures, *, differing: Collection[str] = ()
) -> VideoComparison:
    """Compare two versions of one video.

    Args:
        key: Its key.
        a: The first version.
        b: The second version.
        differing: The settings, by their outermost names, in which the two are known to differ.

    Raises:
        StoreError: If rows cannot be read, or are not those that were written.
    """
    found = measure(a, b)
    verdict, reason = judge(found, differing)
    rows = list(found.differing) if verdict == "same" else []
    if verdict == "same" and rows:
        verdict, reason = "rows differ", f"{_say_rows(rows, a)}, of {found.n_compared}"
    if any(found.not_finite):
        said = _say_not_finite(found.not_finite, a, b)
        if verdict in ("same", "rows differ", "not finite"):
            reason = f"{reason}; {said}" if verdict == "rows differ" else said
            verdict = "not finite"
        else:
            reason = f"{reason}; {said}"
    step = None if a.sampling is None or found.cosine is None else float(a.sampling.stride_s)
    return VideoComparison(
        key,
        found.n_rows,
        found.dims,
        found.cosine,
        found.lowest,
        rows,
        None if step is None else [round(float(a.center_s[row]), 6) for row in rows],
        found.not_finite,
        found.agreement,
        found.shift_rows,
        None if step is None else found.shift_rows * step,
        found.shifted_cosine,
        verdict,
        reason,
        list(found.cosines),
    )


def judge(found: Similarity, differing: Collection[str] = ()) -> tuple[Verdict, str]:
    """What two versions of a video look like, but for single rows; and why.

    *same* if rows are, and their number to within one; *shifted* if they are after one version was
    moved; *other times* if they lie at other seconds or there are more of them; *other scale* if
    they point the same way and differ in length; *other preprocessing* if they differ although the
    channels mean the same; *other weights* if the channels do not, or the settings say so; *not
    finite* if nothing else can be compared.

    Args:
        found: What was measured.
        differing: See :func:`compare_videos`.
    """
    n_rows, counts = found.n_rows, f"{found.n_rows[0]} and {found.n_rows[1]} rows"
    if found.dims[0] != found.dims[1]:
        return "other weights", f"widths differ: {found.dims[0]} and {found.dims[1]}"
    if not all(n_rows):
        return "other times", "a version has no rows"
    if found.cosine is None or found.shifted_cosine is None:
        return "not finite", counts
    best = max(found.cosine, found.shifted_cosine)
    related = best >= RELATED_COSINE
    if found.agreement is not None:
        related = found.agreement >= RELATED_AGREEMENT
    if found.aligned is not None:
        if related:
            return "other times", f"{counts}, {found.aligned}"
        return "other weights", f"{counts}, {found.aligned}, and the channels mean other things"
    equal = found.agreement is None or found.agreement >= SAME_AGREEMENT
    still = found.cosine >= SAME_COSINE and equal and not found.shift_rows
    if found.cosine >= EQUAL_COSINE or still:
        if abs(n_rows[0] - n_rows[1]) > _ROW_COUNT_SLACK:
            return "other times", f"the rows are equal, but there are {counts}"
        if abs(found.length_ratio - 1) > LENGTH_SLACK:
            return "other scale", (
                f"the directions are the same, but the second's rows are {found.length_ratio:.3g} "
                "times as long"
            )
        other = f", {counts}" if n_rows[0] != n_rows[1] else ""
        return "same", f"median cosine {found.cosine:.5f}{other}"
    if found.shift_rows and found.shifted_cosine >= SAME_COSINE and equal:
        return "shifted", (
            f"by {found.shift_rows:+d} rows the median cosine is {found.shifted_cosine:.5f}"
        )
    if related:
        reason = f"the channels mean the same, but the median cosine is {best:.3f}"
        if _WEIGHTS & set(differing):
            return "other weights", reason
        return ("other times" if "sampling" in differing else "other preprocessing"), reason
    return "other weights", f"the channels mean other things (median cosine {found.cosine:.3f})"


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


def _some(store: FeatureStore) -> str:
    keys = list(store)[:3]
    return ", ".join(map(repr, keys)) + (" …" if len(store) > len(keys) else "")
