"""An export that is planned: its videos, and how far its reader's clock will be off.

A reader gives every row a time; a row shows a clip. The time error is the distance between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.annotations import AnnotatedVideo, AnnotationSet
from tspcli.annotations.data_sets import DataSet
from tspcli.errors import ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.sampling import Sampling
from tspcli.sampling.resampling import FloatArray, Taps
from tspcli.store.schema import StoreMetadata
from tspcli.store.store_set import SourceVideo

OWN_FILES = Path("PATH/TO")
"""Stands for the folder of the user's own files in commands and configurations."""

_EXACT_S = 5e-4
"""Errors below this are shown as 0.000 s."""


@dataclass(frozen=True)
class Resample:
    """A planned resampling; its weights are computed when they are needed.

    A long video has millions of weights, and a plan holds all videos.

    Attributes:
        n_rows: The number of rows that it gives.
        taps: Computes the weights.
    """

    n_rows: int
    taps: Callable[[], Taps]


@dataclass(frozen=True)
class PlannedVideo:
    """A video to be exported.

    Attributes:
        source: Where its rows come from.
        name: The name under which the reader looks for its features.
        annotation_name: Its name in the reader's annotations.
        annotated_as: Its name in the given annotations, or None.
        annotated: Its given annotations, or None.
        span_s: The seconds over which the reader spreads the rows, if it does and they are known.
        resample: How its rows become the exported ones; None if they stay unchanged.
        rate: Rows per second of the export, if it has a rate.
    """

    source: SourceVideo
    name: str
    annotation_name: str
    annotated_as: str | None
    annotated: AnnotatedVideo | None
    span_s: float | None = None
    resample: Resample | None = None
    rate: float | None = None

    @property
    def n_rows(self) -> int:
        """Rows after resampling."""
        return self.source.n_rows if self.resample is None else self.resample.n_rows

    @property
    def duration_s(self) -> float | None:
        """The duration in the reader's annotations, else the video's own, if known."""
        annotated = self.annotated.duration_s if self.annotated else None
        return annotated if annotated is not None else self.source.duration_s

    @property
    def length_s(self) -> float:
        """:attr:`duration_s`, or if it is unknown, the seconds that the rows cover."""
        return self.duration_s or self.source.covered_s

    @property
    def clip_centers_s(self) -> FloatArray:
        """Centres of the clips, in seconds, shape (N,)."""
        return self.source.centers_s

    @property
    def shown_s(self) -> FloatArray:
        """The seconds that the exported rows show, shape (n_rows,)."""
        centers = self.clip_centers_s
        return centers if self.resample is None else self.resample.taps().times_s(centers)


@dataclass
class ExportPlan:
    """An export that is completely decided but not yet written.

    Attributes:
        options: The choices, with the target's defaults filled in.
        data_set: The data set whose conventions are followed.
        dim: Width of the stores' features.
        videos: The videos, sorted by key.
        annotations: The given annotations, or None.
        missing: Annotated videos without features, by annotation name.
        sampling: The sampling of all videos, or None if they differ.
        out: Where the export will be.
        companions: Where its other files will be; ``out`` itself if that is a folder.
        metadata: The stores' metadata, if all have it and agree.
        extra_attributes: Further attributes of a video in its store.
        label_ids: Class ids that the user prescribes, or None.
        written: Names of the annotation files that were written; filled before ``usage`` is called.
        notes: What the user should know. Targets append to it.
    """

    options: ExportOptions
    data_set: DataSet
    dim: int
    videos: list[PlannedVideo]
    annotations: AnnotationSet | None
    missing: list[str]
    sampling: Sampling | None
    out: Path
    companions: Path
    metadata: StoreMetadata | None = None
    extra_attributes: Callable[[PlannedVideo], Mapping[str, Any]] = lambda video: {}
    label_ids: Mapping[str, int] | None = None
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def annotation_folder(self) -> Path:
        """Where the annotation files will be."""
        return self.companions / "annotations"

    def annotation_file(self, name: str) -> Path:
        """An annotation file, or a placeholder for the user's own if it was not written."""
        return (self.annotation_folder if name in self.written else OWN_FILES) / name

    @property
    def resampled(self) -> bool:
        """Whether rows differ from the stores'."""
        o = self.options
        return o.length is not None or o.row_rate is not None or o.grid_s is not None

    @cached_property
    def width(self) -> int:
        """Width of the exported rows, padding included."""
        return max(self.dim, self.options.pad_channels or 0)

    @property
    def n_unannotated(self) -> int:
        """The number of exported videos that the given annotations do not mention."""
        if self.annotations is None:
            return 0
        return sum(video.annotated is None for video in self.videos)

    @property
    def max_rows(self) -> int:
        """Rows of the longest exported video."""
        return max(video.n_rows for video in self.videos)

    @property
    def prefix(self) -> str:
        """What the features' names have before the annotations' names."""
        first = self.videos[0]
        if not first.name.endswith(first.annotation_name):
            return ""
        return first.name[: len(first.name) - len(first.annotation_name)]

    def has_entries(self, entries: Collection[Any]) -> bool:
        """Whether there is something to write into the reader's annotations of actions.

        Raises:
            ExportError: If there is nothing, although actions were given.
        """
        if entries:
            return True
        if self.annotations is not None and any(self.annotations.of_kind("actions")):
            raise ExportError(
                "No exported video has an action on its features, so the reader's annotations "
                "would be empty.",
                remedy="Give annotations of these videos, or none to export only the features.",
                option="--annotations",
            )
        self.notes.append("No actions were given, so no annotations are written.")
        return False

    def require_sampling(self) -> Sampling:
        """The sampling of all videos, for readers that compute every row's time from it.

        Raises:
            ExportError: If the videos differ in it, so that no one configuration fits all, or the
                rows of one do not follow at the stride.
        """
        self.require_even_rows()
        if self.sampling is None:
            raise ExportError(
                "The videos differ in frame rate, stride or clip length.",
                remedy="Export stores of one sampling at a time, or extract at a fixed frame rate.",
            )
        return self.sampling

    @property
    def rhythm(self) -> Sampling | None:
        """A sampling of which all videos have the stride and the first centre, in samples.

        Of a store of native frames each video has these at its own rate. None if they differ.
        """
        samplings = [video.source.sampling for video in self.videos]
        rhythms = {(sampling.stride, sampling.center_offset) for sampling in samplings}
        return samplings[0] if len(rhythms) == 1 else None

    def require_rhythm(self) -> Sampling:
        """:attr:`rhythm`, for readers that know a frame rate per video.

        Raises:
            ExportError: If the videos differ in it, or the rows of one do not follow at the stride.
        """
        self.require_even_rows()
        if self.rhythm is None:
            raise ExportError(
                "The videos differ in stride, or in the frames around a row.",
                remedy="Export stores of one sampling at a time.",
            )
        return self.rhythm

    def require_even_rows(self) -> None:
        """Raise unless each row but a last one that was moved back follows at the stride.

        Raises:
            ExportError: For a video whose frame rate varies, of a store of native frames.
        """
        for video in self.videos:
            source = video.source
            if source.uneven_s > _UNEVEN_S:
                raise ExportError(
                    f"The frame rate of {source.key!r} varies, so its rows do not follow at one "
                    f"distance in time (up to {source.uneven_s:.2f} s off), as the reader takes "
                    "them to do.",
                    remedy="Extract at a fixed frame rate, such as --frame-rate 30.",
                    video=source.key,
                )


_UNEVEN_S = 0.005


@dataclass(frozen=True)
class Clock:
    """The times that a reader gives to rows.

    Attributes:
        shown_s: What the rows that the reader works with really show, in seconds, shape (N,).
        assigned_s: The times that the reader gives them, in seconds, shape (N,).
    """

    shown_s: FloatArray
    assigned_s: FloatArray

    def errors(self, clip_centers_s: FloatArray) -> tuple[float, float]:
        """The largest error, and the largest away from the ends, in seconds.

        Args:
            clip_centers_s: The centres of the video's clips, in seconds.
        """
        error = np.abs(self.assigned_s - self.shown_s)
        shown = np.isfinite(error)
        if not shown.any():
            return 0.0, 0.0
        margin = 1e-9
        inside = (
            shown
            & (self.assigned_s >= clip_centers_s[0] - margin)
            & (self.assigned_s <= clip_centers_s[-1] + margin)
            & (self.shown_s > clip_centers_s[0] - margin)
            & (self.shown_s < clip_centers_s[-1] + margin)
        )
        return float(error[shown].max()), float(error[inside].max(initial=0.0))


@dataclass(frozen=True)
class TimeError:
    """The largest errors of one of a reader's clocks over all videos of an export.

    Attributes:
        worst_s: The largest error of any row, in seconds.
        video: The video that has it.
        inside_s: The largest error away from the ends: among rows that the reader places between
            the first and the last clip's centre and that do not repeat the end rows.
    """

    worst_s: float
    video: str
    inside_s: float

    def line(self) -> str:
        """The errors in words."""
        if self.worst_s < _EXACT_S:
            return "the reader places every row exactly"
        return (
            f"the reader places rows at most {self.worst_s:.3f} s off ({self.video}), "
            f"{self.inside_s:.3f} s away from the ends"
        )


def worst_errors(
    videos: Iterable[PlannedVideo], clocks: Callable[[PlannedVideo], Mapping[str, Clock]]
) -> dict[str, TimeError]:
    """The largest time errors over some videos, by clock."""
    found: dict[str, TimeError] = {}
    for video in videos:
        for name, clock in clocks(video).items():
            worst, inside = clock.errors(video.clip_centers_s)
            known = found.setdefault(name, TimeError(worst, video.name, inside))
            found[name] = TimeError(
                max(worst, known.worst_s),
                video.name if worst > known.worst_s else known.video,
                max(inside, known.inside_s),
            )
    return found
