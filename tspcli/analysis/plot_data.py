"""What the pictures show, computed once and drawn by whoever draws.

A :class:`FeatureView` per store (similarity of clips, colours, change, and how well features
separate foreground from background), thumbnails, and one colour per label, the same in pictures,
pages and terminals.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tspcli.analysis.inspect import clip_rows
from tspcli.analysis.similarity import unit_rows
from tspcli.annotations import Segment
from tspcli.errors import StoreError
from tspcli.sampling.resampling import FloatArray, linear, roi_align
from tspcli.store.video_features import VideoFeatures

MOST_CELLS = 512
"""Cells a side of the similarity matrix; a longer video's rows are averaged into this many."""

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
        separation: See :func:`tspcli.analysis.plot_data.separation`; None without segments.
        video_s: Seconds that the video lasts; None if the store does not state it.
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
            f"{video.key!r} has values that are not finite, so it cannot be drawn.",
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


def cut_to(rgb: npt.NDArray[np.uint8], aspect: float) -> npt.NDArray[np.uint8]:
    """The middle of a picture, cut to ``aspect`` (width over height)."""
    height, width = rgb.shape[:2]
    if width > aspect * height:
        keep = max(1, round(aspect * height))
        left = (width - keep) // 2
        return rgb[:, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return rgb[top : top + keep]


def shrink(rgb: npt.NDArray[np.uint8], height: int) -> npt.NDArray[np.uint8]:
    """A picture scaled to ``height`` pixels, antialiased."""
    tall, wide = rgb.shape[:2]
    if tall <= height:
        return rgb
    width = max(1, round(wide * height / tall))
    columns = rgb.reshape(tall, wide * 3)
    lines = roi_align(tall, height).apply(columns.astype(np.float32))
    across = lines.reshape(height, wide, 3).transpose(1, 0, 2).reshape(wide, height * 3)
    taps = roi_align(wide, width) if wide > width else linear(wide, width)
    scaled = taps.apply(across).reshape(width, height, 3).transpose(1, 0, 2)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def png_data_uri(rgb: npt.NDArray[np.uint8]) -> str:
    """A picture, uint8, shape (height, width, 3), as a ``data:`` URI."""
    height, width = rgb.shape[:2]
    lines = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    lines[:, 1:] = rgb.reshape(height, -1)
    # Filter 1 (difference to the left neighbour) halves what zlib makes of a photograph.
    lines[:, 0] = 1
    lines[:, 4:] -= rgb.reshape(height, -1)[:, :-3]
    body = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(body)
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_BASE = (
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800",
)  # fmt: skip
_DARK, _LIGHT = 0.5, 0.5


def _mixed(color: str, target: int, share: float) -> str:
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (target - c) * share):02x}" for c in channels)


SEGMENT_COLORS = (
    *_BASE,
    *(_mixed(color, 0, _DARK) for color in _BASE),
    *(_mixed(color, 255, _LIGHT) for color in _BASE),
)
"""Colours that people with a colour vision deficiency can tell apart (Okabe and Ito), then the same
darker, then lighter."""

OTHER_COLOR = "#000000"
"""Of labels for which there is no colour left."""


def segment_colors(data: PlotData) -> dict[str, str]:
    """A colour for each label; no two labels share one, but those that have :data:`OTHER_COLOR`."""
    colors = dict(zip(data.labels, SEGMENT_COLORS, strict=False))
    return colors | dict.fromkeys(data.labels[len(colors) :], OTHER_COLOR)


def legend_entries(data: PlotData) -> list[tuple[str, str]]:
    """(Label, colour) of each entry of a legend; those without a colour of their own share one."""
    colors = segment_colors(data)
    named = [label for label in data.labels if colors[label] != OTHER_COLOR]
    entries = [(label, colors[label]) for label in named]
    if rest := len(data.labels) - len(named):
        entries.append((f"{rest} other{'s' * (rest > 1)}", OTHER_COLOR))
    return entries
