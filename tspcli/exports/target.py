"""What a target is: a reader of features, and all that must be known to write for it.

A target is one small file: a subclass of :class:`Target` and an entry in the registry. What it
must say of its reader's clock (:meth:`Target.clocks`) is what makes the time error measurable.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tspcli.annotations import AnnotatedVideo, AnnotationSet
from tspcli.errors import ExportError, UsageError
from tspcli.exports.export_options import DataSet, ExportOptions, option_name
from tspcli.sampling import Sampling
from tspcli.sampling.resampling import FloatArray, Taps
from tspcli.store.schema import StoreMetadata
from tspcli.store.store_set import SourceVideo

Array = npt.NDArray[np.floating[Any]]

OWN_FILES = Path("PATH/TO")
"""Stands in commands and configurations for the folder of files that the export did not write."""


@dataclass(frozen=True)
class Resample:
    """A resampling that is planned: the weights themselves are made when they are needed.

    A long video has millions of them, and a plan holds all videos.

    Attributes:
        n_rows: The rows that it will give.
        taps: Makes the weights.
    """

    n_rows: int
    taps: Callable[[], Taps]


@dataclass(frozen=True)
class PlannedVideo:
    """A video on its way out.

    Attributes:
        source: Where its rows come from.
        name: What the reader calls it when it looks for features.
        annotation_name: What the reader's annotations call it.
        annotated_as: What the given annotations call it, or None.
        annotated: What the given annotations say of it, or None.
        span_s: The seconds over which the reader spreads the rows, if it does and they are known.
        resample: How its rows become the exported ones; None if they stay as they are.
        rate: Rows a second of the export, where it has a rate.
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
        """The duration that the reader's annotations give, else the video's own, if known."""
        annotated = self.annotated.duration_s if self.annotated else None
        return annotated if annotated is not None else self.source.duration_s

    @property
    def clip_centers_s(self) -> FloatArray:
        """Centres of the clips, seconds, shape (N,)."""
        return self.source.first_s + self.source.step_s * np.arange(self.source.n_rows)

    @property
    def shown_s(self) -> FloatArray:
        """The seconds that the exported rows show, shape (n_rows,)."""
        centers = self.clip_centers_s
        return centers if self.resample is None else self.resample.taps().times_s(centers)


@dataclass
class ExportPlan:
    """An export that was thought through and has not begun.

    Attributes:
        options: The choices, the target's defaults filled in.
        data_set: Whose conventions are followed.
        dim: Width of the stores' features.
        videos: The videos, sorted by key.
        annotations: The annotations given, or None.
        missing: Annotated videos without features, by annotation name.
        sampling: The sampling of all videos, or None if they differ.
        out: Where the export will lie.
        companions: Where what belongs to it will lie; ``out`` itself if that is a folder.
        metadata: What the stores say of themselves, if they say it and agree.
        extra_attributes: Further attributes of a video in its store.
        label_ids: Class ids that the user prescribes, or None.
        written: Names of the annotation files that were written; filled before ``usage`` is asked.
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
        """Where the annotation files will lie."""
        return self.companions / "annotations"

    def annotation_file(self, name: str) -> Path:
        """The annotation file of that name, or where it was not written, a place to fill in."""
        return (self.annotation_folder if name in self.written else OWN_FILES) / name

    @property
    def resampled(self) -> bool:
        """Whether rows are other than the stores'."""
        o = self.options
        return o.length is not None or o.row_rate is not None or o.grid_s is not None

    @cached_property
    def width(self) -> int:
        """Width of what is exported, padding included."""
        return max(self.dim, self.options.pad_channels or 0)

    @property
    def n_unannotated(self) -> int:
        """How many exported videos no annotation mentions, if annotations were given."""
        if self.annotations is None:
            return 0
        return sum(video.annotated is None for video in self.videos)

    @property
    def max_rows(self) -> int:
        """Rows of the longest exported video."""
        return max(video.n_rows for video in self.videos)

    @property
    def prefix(self) -> str:
        """What stands before the annotations' names in the features' names."""
        first = self.videos[0]
        if not first.name.endswith(first.annotation_name):
            return ""
        return first.name[: len(first.name) - len(first.annotation_name)]

    def has_entries(self, entries: Collection[Any]) -> bool:
        """Whether there is something to write into the reader's annotations of actions.

        Raises:
            ExportError: If there is nothing, though actions were given.
        """
        if entries:
            return True
        if self.annotations is not None and any(self.annotations.of_kind("actions")):
            raise ExportError(
                "Not one exported video has an action on its features, so the reader's annotations "
                "would be empty.",
                remedy="Give annotations of these videos, or none to export the features alone.",
            )
        self.notes.append("No actions were given, so no annotations are written.")
        return False

    def require_sampling(self) -> Sampling:
        """The one sampling.

        Raises:
            ExportError: If the videos differ in it, so that no one configuration fits all.
        """
        if self.sampling is None:
            raise ExportError(
                "The stores differ in frame rate, stride or clip length.",
                remedy="Export stores of one sampling at a time.",
            )
        return self.sampling


@dataclass(frozen=True)
class Clock:
    """How a reader puts rows in time.

    Attributes:
        shown_s: What the rows that the reader works with really show, seconds.
        assigned_s: When the reader takes them to be, seconds.
    """

    shown_s: FloatArray
    assigned_s: FloatArray


@dataclass(frozen=True)
class Usage:
    """How to use an export.

    Attributes:
        text: Commands, settings and what else must be done, for people.
        files: Further files for the reader, such as a configuration, by name.
    """

    text: str
    files: Mapping[str, str] = field(default_factory=dict)


class Writer(ABC):
    """Writes videos one at a time; opened and closed by the engine."""

    @abstractmethod
    def write(self, video: PlannedVideo, rows: Array) -> None:
        """Write one video's rows, shape (n_rows, width)."""

    def close(self) -> None:  # noqa: B027 (most writers have nothing open)
        """Finish."""


class Target(ABC):
    """A reader of features.

    Class attributes:
        name: What the user calls it.
        summary: One line.
        accepts: The options that make sense for it, beside those that make sense for all.
        defaults: Its values of options that the user left open.
        trains: Whether one export has to hold all subsets, because it is trained and validated on.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    accepts: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}
    trains: ClassVar[bool] = True
    FOR_ALL: ClassVar[frozenset[str]] = frozenset(
        {"name_prefix", "dtype", "missing", "data_set", "overwrite"}
    )

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        """The options with this target's defaults.

        Raises:
            UsageError: If an option means nothing here.
        """
        for name in sorted(options.changed() - self.accepts - self.FOR_ALL):
            raise UsageError(
                f"{option_name(name)} means nothing for {self.name}.",
                remedy=f"{self.name} takes "
                + ", ".join(sorted(map(option_name, self.accepts | self.FOR_ALL)))
                + ".",
            )
        values = {
            name: value
            for name, value in self.defaults.items()
            if getattr(options, name) is None and not self._replaced(options, name)
        }
        options = replace(options, missing=options.missing or "error")
        options = replace(options, **values)
        if options.resize is not None and options.length is None and options.row_rate is None:
            raise UsageError(
                f"--resize {options.resize} needs a length.", remedy="Add --length, such as 100."
            )
        if options.length is not None and options.resize is None:
            options = replace(options, resize="linear")
        if options.row_rate is not None and options.resize is None:
            options = replace(options, resize="centers")
        return options

    @staticmethod
    def _replaced(options: ExportOptions, name: str) -> bool:
        """Whether a default about the number of rows gives way to another choice about it."""
        ways = ("length", "row_rate", "grid_s")
        return name in ways and any(getattr(options, way) is not None for way in ways)

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        """Whether ``out`` names one file instead of a folder."""
        return False

    def wants_prefix(self, data_set: DataSet) -> bool:
        """Whether the reader, as configured by its authors, looks for names with ``v_``."""
        return False

    def annotation_name(self, name: str, prefix: str) -> str:
        """What the reader's annotations call the video of feature name ``name``.

        Args:
            name: The feature name.
            prefix: What the reader can be told to put before every video's ID.
        """
        return name

    def span_s(self, video: PlannedVideo, options: ExportOptions) -> float | None:
        """The seconds over which the reader spreads a video's rows; None if it does not."""
        return video.duration_s

    def check(self, plan: ExportPlan) -> None:  # noqa: B027 (most targets have nothing to add)
        """Raise if the reader cannot take this export; append notes for the user."""

    @abstractmethod
    def open(self, plan: ExportPlan, main: Path) -> Writer:
        """Start writing below (or to) ``main``."""

    @abstractmethod
    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        """How the reader puts the exported rows in time; one entry for each of its ways."""

    @abstractmethod
    def usage(self, plan: ExportPlan) -> Usage:
        """How to use the export."""

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        """Write the reader's annotation files, filtered to the exported videos."""
        return []

    def write_extras(self, plan: ExportPlan, main: Path) -> None:  # noqa: B027 (optional)
        """Write what else the reader opens beside the features."""


def shell(path: Path, end: str = "") -> str:
    """A path as a word of a shell command, with ``end`` after it."""
    return shlex.quote(f"{path}{end}")
