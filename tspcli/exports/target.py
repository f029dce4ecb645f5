"""The contract of a target: a reader of features, and what must be known to write for it.

A target is one small file: a subclass of :class:`Target`, and a line in the table of targets. Its
account of the reader's clock (:meth:`Target.clocks`) makes the time error measurable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tspcli.annotations.data_sets import DataSet
from tspcli.errors import UsageError
from tspcli.exports.export_options import ROW_COUNTS, ExportOptions, option_name
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo

Array = npt.NDArray[np.floating[Any]]


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
    """Writes videos one at a time; opened and closed by the export."""

    @abstractmethod
    def write(self, video: PlannedVideo, rows: Array) -> None:
        """Write one video's rows, shape (n_rows, width)."""

    def close(self) -> None:  # noqa: B027 (most writers have nothing open)
        """Finish."""


class Target(ABC):
    """A reader of features.

    Class attributes:
        accepts: The options that it takes, besides those that all targets take.
        defaults: Its values of options that the user left open.
        trains: Whether one export has to hold all subsets, because the reader trains and validates
            on it.
        takes_label_ids: Whether its annotations have class ids, which the user may prescribe.
    """

    accepts: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}
    trains: ClassVar[bool] = True
    takes_label_ids: ClassVar[bool] = False
    FOR_ALL: ClassVar[frozenset[str]] = frozenset(
        {"name_prefix", "dtype", "missing", "data_set", "overwrite"}
    )

    def __init__(self, name: str) -> None:
        self.name = name

    def resolve(self, options: ExportOptions, data_set: DataSet) -> ExportOptions:
        """The options with this target's defaults.

        Raises:
            UsageError: If an option has no meaning here.
        """
        for name in sorted(options.changed() - self.accepts - self.FOR_ALL):
            raise UsageError(
                f"{option_name(name)} has no meaning for {self.name}.",
                remedy=f"{self.name} takes "
                + ", ".join(sorted(map(option_name, self.accepts | self.FOR_ALL)))
                + ".",
                option=option_name(name),
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
                f"--resize {options.resize} needs a length.",
                remedy="Add --length, such as 100.",
                option="--resize",
            )
        if options.length is not None and options.resize is None:
            options = replace(options, resize="linear")
        if options.row_rate is not None and options.resize is None:
            options = replace(options, resize="centers")
        return options

    @staticmethod
    def _replaced(options: ExportOptions, name: str) -> bool:
        """Whether the user chose the number of rows in another way than this default."""
        return name in ROW_COUNTS and any(getattr(options, n) is not None for n in ROW_COUNTS)

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        """Whether ``out`` names one file instead of a folder."""
        return False

    def wants_prefix(self, data_set: DataSet) -> bool:
        """Whether the reader, as its authors configure it, looks for names with ``v_``."""
        return False

    def annotation_name(self, name: str, prefix: str) -> str:
        """A video's name in the reader's annotations.

        Args:
            name: The name of its features.
            prefix: What the reader can be configured to put before every video's ID.
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
        """The times that the reader gives to the exported rows, for each of its ways to do so."""

    @abstractmethod
    def usage(self, plan: ExportPlan) -> Usage:
        """How to use the export."""

    def write_annotations(self, plan: ExportPlan, folder: Path) -> list[Path]:
        """Write the reader's annotation files, filtered to the exported videos."""
        return []

    def write_extras(self, plan: ExportPlan, main: Path) -> None:  # noqa: B027 (optional)
        """Write what else the reader opens beside the features."""
