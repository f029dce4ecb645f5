"""What a file holds: a store and its videos, or global features and their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.analysis.similarity import unit_rows
from tspcli.core.run_dir import read_report
from tspcli.errors import StoreError
from tspcli.sampling.resampling import FloatArray
from tspcli.store.gvf import GlobalFeatures
from tspcli.store.store import FeatureStore
from tspcli.store.store_set import find_key
from tspcli.store.video_features import VideoFeatures

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class VideoSummary:
    """One video of a store.

    Attributes:
        key: Its key.
        n_rows: Rows (clips).
        dim: Width of a row.
        covered_s: Seconds from the first clip's start to the last one's end, if known.
        duration_s: Seconds of the video, if known.
        source_fps: Frames a second of the source, if known.
        decoder: The decoder that read it, if known.
        warnings: What was out of the ordinary.
        intact: Whether rows and attributes are as written; None if unchecked or unknown, False
            also if they cannot be read.
        not_finite: Rows with a value that is not finite; None if unchecked or unreadable.
    """

    key: str
    n_rows: int
    dim: int
    covered_s: float | None
    duration_s: float | None
    source_fps: float | None
    decoder: str | None
    warnings: list[str]
    intact: bool | None = None
    not_finite: int | None = None

    @property
    def is_checked(self) -> bool:
        """Whether its rows were looked at."""
        return self.intact is not None or self.not_finite is not None


@dataclass(frozen=True)
class StoreSummary:
    """A store at a glance.

    Attributes:
        path: The file.
        encoder: The backbone, if known.
        weights: The weights' name, if known.
        weights_in_words: The same, with folder and digest for a local file.
        tool_version: The version that wrote it; None for a file of another program.
        settings: What the rows depend on, nested names joined by dots.
        videos: The videos, sorted by key.
        failures: Videos of the run that have no features: key, reason, detail.
        recipe: The recipe that was followed: name, digest and deviations; None for none.
    """

    path: str
    encoder: str | None
    weights: str | None
    weights_in_words: str | None
    tool_version: str | None
    settings: dict[str, Any]
    videos: list[VideoSummary]
    failures: list[dict[str, Any]] = field(default_factory=list)
    recipe: Mapping[str, Any] | None = None

    @property
    def n_rows(self) -> int:
        """Rows of all videos."""
        return sum(video.n_rows for video in self.videos)

    @property
    def dims(self) -> list[int]:
        """The widths that occur."""
        return sorted({video.dim for video in self.videos})

    @property
    def seconds(self) -> float | None:
        """Seconds of all videos, by their duration or else what rows cover; None if unknown."""
        total = 0.0
        for video in self.videos:
            seconds = video.duration_s if video.duration_s is not None else video.covered_s
            if seconds is None:
                return None
            total += float(seconds)
        return total

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {
            **asdict(self),
            "n_videos": len(self.videos),
            "n_rows": self.n_rows,
            "dims": self.dims,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class RowView:
    """One row of a video.

    Attributes:
        row: Its number.
        start_s: Start of its clip; None if the file does not state it.
        center_s: Centre of its clip.
        end_s: End of its clip.
        norm: Euclidean length of the feature.
        neighbours: (row, cosine) of the most similar rows whose clips share no frame with it.
    """

    row: int
    start_s: float | None
    center_s: float | None
    end_s: float | None
    norm: float
    neighbours: list[tuple[int, float]]


def summarize(store: FeatureStore, *, check: bool = False) -> StoreSummary:
    """Summarise a store.

    Args:
        store: The open store.
        check: Read every row, compare checksums and count values that are not finite. One video
            is in memory at a time.
    """
    metadata = store.metadata
    return StoreSummary(
        str(store.path),
        metadata.encoder,
        metadata.weights,
        metadata.weights_in_words,
        metadata.tool_version,
        flatten(metadata.settings),
        [_summarize(store[key], check) for key in store],
        read_failures(store.path),
        metadata.recipe,
    )


def view_video(video: VideoFeatures, *, n_neighbours: int = 3) -> list[RowView]:
    """The rows of a video with their seconds, norms and nearest neighbours.

    Neighbours are looked for within the video, by cosine, among rows whose clips do not overlap
    the row's own (unless nothing else is there to compare with).

    Raises:
        StoreError: If the rows cannot be read, or are not those that were written.
    """
    rows = video.checked_rows()
    known = video.sampling is not None
    start, center, end = (
        (video.start_s, video.center_s, video.end_s) if known else (None, None, None)
    )
    nearest = _nearest(rows, clip_rows(video), n_neighbours)
    norms = np.linalg.norm(rows, axis=1)
    return [
        RowView(i, _at(start, i), _at(center, i), _at(end, i), float(norms[i]), nearest[i])
        for i in range(len(rows))
    ]


def clip_rows(video: VideoFeatures) -> int:
    """How many rows further the first clip lies that shares no frame with a row's own."""
    sampling = video.sampling
    return 1 if sampling is None else -(-sampling.clip_length // sampling.stride)


def read_failures(path: Path) -> list[dict[str, Any]]:
    """The failures that the run which made a store reports next to it; none if it left no report.

    Raises:
        StoreError: If the report is damaged.
    """
    report = read_report(path) or {"videos": []}
    return [
        {"key": video["key"], "reason": video.get("reason"), "detail": video.get("detail")}
        for video in report["videos"]
        if video["status"] == "failed"
    ]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with their names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _summarize(video: VideoFeatures, check: bool) -> VideoSummary:
    sampling = video.sampling
    covered = None
    if sampling is not None:
        covered = float(sampling.clip_end_s(video.n_rows - 1)) if video.n_rows else 0.0
    intact, not_finite = None, None
    if check:
        try:
            not_finite = int((~np.isfinite(video.rows).all(axis=1)).sum())
            intact = video.verify()
        except StoreError:
            intact = False
    return VideoSummary(
        video.key,
        video.n_rows,
        video.dim,
        covered,
        video.duration_s,
        video.source_fps,
        video.attrs.get("decoder"),
        video.warnings,
        intact,
        not_finite,
    )


def _at(times: FloatArray | None, row: int) -> float | None:
    return None if times is None else round(float(times[row]), 6)


def _nearest(rows: FloatArray, apart: int, n_neighbours: int) -> list[list[tuple[int, float]]]:
    units = unit_rows(rows)
    n = len(units)
    apart = min(apart, max(1, n - 1))
    count = max(0, min(n_neighbours, n - 1))
    found: list[list[tuple[int, float]]] = []
    columns = np.arange(n)
    for start in range(0, n, _BLOCK_ROWS):
        block = units[start : start + _BLOCK_ROWS] @ units.T
        own = np.arange(start, start + len(block))
        block[np.abs(columns[None] - own[:, None]) < apart] = -np.inf
        best = np.argsort(-block, axis=1, kind="stable")[:, :count]
        for similarity, order in zip(block, best, strict=True):
            found.append([(int(j), float(similarity[j])) for j in order if similarity[j] > -np.inf])
    return found


@dataclass(frozen=True)
class GlobalVideo:
    """One video's vector.

    Attributes:
        key: The video's key.
        norm: Euclidean length of the vector.
        n_rows: How many clips it was pooled from, if the file states it.
        neighbours: (key, cosine) of the most similar videos.
    """

    key: str
    norm: float
    n_rows: int | None
    neighbours: list[tuple[str, float]]


@dataclass(frozen=True)
class GlobalSummary:
    """A file of global features at a glance.

    Attributes:
        path: The file.
        pool: How clips became one vector: ``max``, ``mean``, or None if the file omits it.
        dim: Width of a vector.
        encoder: The backbone, if known.
        weights: The weights' name, if known.
        weights_in_words: The same, with folder and digest for a local file.
        tool_version: The version that wrote it; None for a file of another program.
        settings: What the vectors depend on, nested names joined by dots.
        videos: The videos, sorted by key.
    """

    path: str
    pool: str | None
    dim: int
    encoder: str | None
    weights: str | None
    weights_in_words: str | None
    tool_version: str | None
    settings: dict[str, Any]
    videos: list[GlobalVideo]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {"kind": "global features", "n_videos": len(self.videos), **asdict(self)}


def summarize_global(features: GlobalFeatures) -> GlobalSummary:
    """Summarise a file of global features."""
    metadata = features.metadata
    return GlobalSummary(
        str(features.path),
        features.pool,
        features.dim,
        metadata.encoder,
        metadata.weights,
        metadata.weights_in_words,
        metadata.tool_version,
        flatten(metadata.settings),
        [_video(features, key, []) for key in sorted(features)],
    )


def view_global(features: GlobalFeatures, name: str, *, n_neighbours: int = 3) -> GlobalVideo:
    """One video, and the videos whose vectors are nearest by cosine.

    Raises:
        UsageError: If there is no such video.
    """
    key = find_key(features.vectors, name, features.path)
    others = [other for other in features if other != key]
    units = unit_rows(np.stack([features[key], *(features[other] for other in others)]))
    cosines = units[1:] @ units[0]
    nearest = np.argsort(-cosines, kind="stable")[:n_neighbours]
    return _video(features, key, [(others[i], float(cosines[i])) for i in nearest])


def _video(features: GlobalFeatures, key: str, neighbours: list[tuple[str, float]]) -> GlobalVideo:
    n_rows = features.attributes.get(key, {}).get("pooled_rows")
    norm = float(np.linalg.norm(features[key]))
    return GlobalVideo(key, norm, None if n_rows is None else int(n_rows), neighbours)
