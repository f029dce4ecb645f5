"""Annotated videos of feature stores, and their features on the network's grid.

The grid has equal cells over a video, or over windows of it. A row of a store stands for the time
of its clip's centre, in exact seconds. Between centres features are interpolated linearly; beyond
the first and the last one they stay constant. A cell that is longer than the step between rows
takes the mean over as many places in it as rows fall into it, so that no row of a long video is
skipped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.errors import LocalizationError, StoreError, StoreMismatchError
from tspcli.localization.results import require_forward
from tspcli.sampling import Sampling
from tspcli.store.store_set import StoreSet
from tspcli.store.video_features import VideoFeatures

Paths = str | Path | Sequence[str | Path]

_DECISIVE = ("backbone", "weights_sha256", "preprocessing")
"""Settings that change what features mean; precision and stride do not."""


# --- the grid -------------------------------------------------------------------------------------


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
    """One window over all of the video, or windows of ``window_s`` that overlap by half.

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
            remedy="Compute them again; `tsp doctor` checks whether the store is damaged.",
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


# --- videos ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalizationVideo:
    """One video with features.

    Attributes:
        features: Its rows and their seconds.
        duration_s: The store's, else the annotated one, else the end of the last clip.
        segments: Its actions; empty without annotations.
    """

    features: VideoFeatures
    duration_s: float
    segments: tuple[Segment, ...] = ()

    @property
    def key(self) -> str:
        """Its key in the store."""
        return self.features.key


@contextmanager
def open_features(paths: Paths, *, sampling: Sampling | None = None) -> Iterator[StoreSet]:
    """Open one or more feature stores as one.

    Args:
        paths: HDF5 files; the released features are one file per subset.
        sampling: Where rows lie in time, for files that do not say so.

    Raises:
        StoreError: If one cannot be read, two hold one video, or they hold none.
        StoreMismatchError: If they were made with different settings, or widths differ.
        UsageError: If every store states its sampling and one differs from the given one.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with StoreSet([Path(path) for path in several], sampling=sampling) as stores:
        if not stores:
            raise StoreError(
                f"{', '.join(map(str, stores.paths))} holds no video.", path=stores.paths[0]
            )
        yield stores


def describe(features: VideoFeatures, annotated: AnnotatedVideo | None) -> LocalizationVideo:
    """A video with its duration and, if it is annotated, its actions.

    Raises:
        StoreError: If the store does not say at which seconds rows lie.
        LocalizationError: If it has no rows.
    """
    if not features.n_rows:
        raise LocalizationError(
            f"The video {features.key!r} has no features.", remedy="Leave it out, or extract it."
        )
    duration_s = features.duration_s
    if duration_s is None and annotated is not None:
        duration_s = annotated.duration_s
    if duration_s is None:
        duration_s = float(features.end_s[-1])
    segments = () if annotated is None else annotated.segments
    return LocalizationVideo(features, duration_s, segments)


def annotated_videos(
    features: StoreSet, annotations: Annotations
) -> tuple[list[LocalizationVideo], list[str]]:
    """The videos that have both features and actions, sorted by key.

    Returns:
        The videos, and the names of those that have actions but no features.

    Raises:
        LocalizationError: If no video has both.
        AnnotationError: If an action ends before it starts.
    """
    require_forward(annotations)
    found = []
    met = set()
    for key, name in sorted(annotations.pair(list(features)).items()):
        met.add(name)
        video = describe(features[key], annotations[name])
        if video.segments:
            found.append(video)
    if not found:
        raise LocalizationError(
            f"None of the {len(features)} videos with features has an annotated action: the store "
            f"holds {next(iter(features))!r}, the annotations {next(iter(annotations), 'none')!r}.",
            remedy="Compare the names: only a leading 'v_' is ignored.",
        )
    missing = [n for n, video in annotations.items() if video.segments and n not in met]
    return found, missing


def require_same_encoder(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise unless features come from the encoder that a network was trained with.

    Features of unknown origin are accepted.

    Raises:
        StoreMismatchError: Naming what differs.
    """
    if not trained or not given:
        return
    different = [name for name in _DECISIVE if trained.get(name) != given.get(name)]
    if different:
        shown = "; ".join(f"{n}: {given.get(n)}, not {trained.get(n)}" for n in different)
        raise StoreMismatchError(
            f"The features come from another encoder than those in training: {shown}.",
            remedy="Extract the videos with the same weights, or train on these features.",
        )
