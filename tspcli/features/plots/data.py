"""What the pictures show, computed once and drawn by whoever draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tspcli.annotations import Segment
from tspcli.errors import StoreError
from tspcli.features.inspect import clip_rows
from tspcli.features.lookup import unit_rows
from tspcli.features.plots.separation import foreground_rows, separation
from tspcli.features.resampling import FloatArray, roi_align
from tspcli.features.store import VideoFeatures

MOST_CELLS = 512
"""Cells a side of the similarity matrix; a longer video's rows are averaged into so many."""

_FLAT = 0.2
"""Share of the common scale below which a store's own spread is hardly seen."""


@dataclass(frozen=True)
class Thumbnail:
    """A frame of the video.

    Attributes:
        time_s: When it is shown, seconds after the first frame.
        rgb: The picture, uint8, shape (height, width, 3).
    """

    time_s: float
    rgb: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FeatureView:
    """One store's features of the video.

    Attributes:
        title: What to call them.
        n_rows: Rows of the video, N.
        dim: Width of a row.
        edges_s: The cells' edges in seconds, shape (M + 1,); M is N or :data:`MOST_CELLS`.
        similarity: Cosines of cells, float32, shape (M, M).
        colors: The first three principal components as colours, uint8, shape (M, 3).
        explained: The share of variance that each of the three has.
        change_s: When the change is measured, seconds, shape (K,).
        change: 1 - cosine of a row and the first later one whose clip shares no frame with its.
        separation: See :func:`tspcli.features.plots.separation.separation`; None without segments.
        video_s: Seconds that the video lasts; None if the store does not tell.
    """

    title: str
    n_rows: int
    dim: int
    edges_s: FloatArray
    similarity: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]
    explained: tuple[float, ...]
    change_s: FloatArray
    change: FloatArray
    separation: float | None
    video_s: float | None = None

    @property
    def end_s(self) -> float:
        """End of the last cell."""
        return float(self.edges_s[-1])


@dataclass(frozen=True)
class PlotData:
    """All that one picture shows.

    Attributes:
        key: The video.
        views: One or two stores' features of it.
        segments: Annotated segments.
        thumbnails: Frames of the video.
        own_scales: Whether each store has a colour scale of its own.
    """

    key: str
    views: list[FeatureView]
    segments: Sequence[Segment] = ()
    thumbnails: Sequence[Thumbnail] = ()
    own_scales: bool = False

    @property
    def duration_s(self) -> float:
        """Seconds that the time axis has."""
        return axis_s(self.views)

    @property
    def labels(self) -> list[str]:
        """The segments' labels, each once, in order of appearance."""
        return list(dict.fromkeys(segment.label for segment in self.segments))

    def scale_of(self, view: FeatureView) -> tuple[float, float]:
        """The cosines at the ends of a matrix's colour scale.

        From the 2nd percentile of what lies off the diagonals to 1: one scale for both stores, so
        that their matrices can be compared, unless each has its own.
        """
        return _scale([view] if self.own_scales else self.views)

    def largest_change(self, view: FeatureView) -> float:
        """The top of a view's axis of change, by the same rule."""
        views = [view] if self.own_scales else self.views
        return max(float(v.change.max(initial=0.0)) for v in views)

    @property
    def flattened(self) -> list[str]:
        """Titles of the stores of which the common scale shows almost nothing."""
        low, high = _scale(self.views)
        return [
            view.title
            for view in self.views
            if not self.own_scales and high - _scale([view])[0] < _FLAT * (high - low)
        ]


def axis_s(views: Sequence[FeatureView]) -> float:
    """Seconds of a time axis for some views: to the video's end, which its clips may not reach."""
    return max(max(view.end_s, view.video_s or 0.0) for view in views)


def _scale(views: Sequence[FeatureView]) -> tuple[float, float]:
    off = [view.similarity[~np.eye(len(view.similarity), dtype=bool)] for view in views]
    values = np.concatenate([x for x in off if len(x)] or [np.zeros(1, np.float32)])
    # Up to 1e-6 a difference is rounding, which no picture should show.
    return min(float(np.percentile(values, 2)), 1 - 1e-6), 1.0


def view_features(
    video: VideoFeatures, title: str, segments: Sequence[Segment] = ()
) -> FeatureView:
    """Compute what is shown of one video's features.

    Args:
        video: The features; their seconds must be known.
        title: What to call them.
        segments: Annotated segments, for the separation.

    Raises:
        StoreError: If the seconds are unknown, values are not finite, or the rows are not those
            that were written.
    """
    center_s = video.center_s
    rows = video.checked_rows()
    if not len(rows):
        raise StoreError(f"{video.key!r} has no rows.", remedy="Choose another video.")
    if not np.isfinite(rows).all():
        raise StoreError(
            f"{video.key!r} has values that are not finite, so nothing of it can be drawn.",
            remedy="Compute that video again.",
        )
    assert video.sampling is not None
    step_s = float(video.sampling.stride_s)
    apart = clip_rows(video)
    cells = rows
    if len(rows) > MOST_CELLS:
        cells = roi_align(len(rows), MOST_CELLS).apply(rows)
    units = unit_rows(cells)
    first, last = center_s[0] - step_s / 2, center_s[-1] + step_s / 2
    colors, explained = principal_colors(cells)
    change_s, change = _change(rows, center_s, apart)
    foreground = foreground_rows(center_s, segments)
    return FeatureView(
        title,
        len(rows),
        rows.shape[1],
        np.linspace(first, last, len(cells) + 1),
        np.clip(units @ units.T, -1, 1).astype(np.float32),
        colors,
        explained,
        change_s,
        change,
        separation(rows, foreground, apart=apart) if segments else None,
        video.duration_s if math.isfinite(video.duration_s or 0.0) else None,
    )


def principal_colors(rows: FloatArray) -> tuple[npt.NDArray[np.uint8], tuple[float, ...]]:
    """The first three principal components of rows as red, green and blue.

    Each component runs from its 2nd to its 98th percentile; its sign is such that its largest
    loading is positive, so that a picture does not depend on the solver. A video without variance
    is grey.

    Returns:
        Colours, uint8, shape (N, 3), and each component's share of the variance.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    total = float((strengths**2).sum())
    colors = np.full((len(rows), 3), 128, dtype=np.uint8)
    explained = []
    for channel in range(min(3, len(strengths))):
        if total == 0 or strengths[channel] ** 2 < 1e-12 * total:
            break
        axis = axes[channel]
        values = centred @ axis * np.sign(axis[np.argmax(np.abs(axis))])
        low, high = np.percentile(values, [2, 98])
        span = high - low or 1.0
        colors[:, channel] = np.round(255 * np.clip((values - low) / span, 0, 1))
        explained.append(float(strengths[channel] ** 2 / total))
    return colors, tuple(explained)


def _change(rows: FloatArray, center_s: FloatArray, apart: int) -> tuple[FloatArray, FloatArray]:
    if len(rows) <= apart:
        return np.zeros(0), np.zeros(0)
    units = unit_rows(rows.astype(np.float64))
    change = 1 - (units[:-apart] * units[apart:]).sum(axis=1)
    return (center_s[:-apart] + center_s[apart:]) / 2, np.maximum(change, 0)
