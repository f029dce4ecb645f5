"""What a user can choose about an export. Importing this needs no numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tspcli.errors import UsageError

Flow = Literal["zeros", "empty", "split"]
Missing = Literal["error", "skip", "list"]
Dtype = Literal["float32", "float16"]
Container = Literal["npy", "hdf5"]
Resize = Literal["linear", "centers", "bmn-pool", "roi-align"]
FeatureFrame = Literal["fit", "keep"]

MOST_CHANNELS = 65_536
"""The largest width for padding; a typing error would fill memory and disk."""


@dataclass(frozen=True)
class ExportOptions:
    """The choices of one export; None, or ``auto``, is the target's default.

    Attributes:
        name_prefix: ``auto``, ``keep``, ``add:v_`` or ``strip:v_``.
        suffix: What follows the name in file names.
        length: Rows per video.
        resize: How rows become ``length`` rows.
        row_rate: Rows per second: a number, or ``original`` for the source video's frame rate.
        grid_s: Seconds per row, onto whose grid rows are averaged.
        flow: What a second stream holds, which TSP does not have.
        split_channels: Channels of the first part for ``flow="split"``; half of them if None.
        pad_channels: Width to which zeros are appended; 0 for none.
        dtype: Type of the numbers.
        missing: What to do about annotated videos without features.
        container: Files per video, or one file, for ActionFormer, which reads both.
        data_set: The data set whose conventions names, annotations and configuration follow;
            detected from the names if None.
        per_subset: One file per subset instead of one for all (``official``).
        feature_frame: In BSN's dialect, ``fit`` makes the loader's clock true, ``keep`` keeps the
            annotated value.
        overwrite: Replace an earlier export.
    """

    name_prefix: str = "auto"
    suffix: str = ""
    length: int | None = None
    resize: Resize | None = None
    row_rate: float | Literal["original"] | None = None
    grid_s: float | None = None
    flow: Flow | None = None
    split_channels: int | None = None
    pad_channels: int | None = None
    dtype: Dtype = "float32"
    missing: Missing | None = None
    container: Container | None = None
    data_set: str | None = None
    per_subset: bool = False
    feature_frame: FeatureFrame = "fit"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize not in get_args(Resize):
            raise UsageError(
                f"{self.resize!r} is not a way to resize; use {', '.join(get_args(Resize))}.",
                option="--resize",
                value=self.resize,
            )
        for name in ("length", "row_rate", "grid_s", "split_channels"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise UsageError(
                    f"{option_name(name)} must be positive and finite, not {value}.",
                    option=option_name(name),
                    value=value,
                )
        if (self.pad_channels or 0) > MOST_CHANNELS:
            raise UsageError(
                f"--pad-channels {self.pad_channels} is more than {MOST_CHANNELS}.",
                option="--pad-channels",
                value=self.pad_channels,
            )
        ways = [n for n in ("length", "row_rate", "grid_s") if getattr(self, n) is not None]
        if len(ways) > 1:
            raise UsageError(
                f"{option_name(ways[0])} and {option_name(ways[1])} exclude each other.",
                option=option_name(ways[1]),
            )

    def changed(self) -> set[str]:
        """The names of the options that differ from the defaults."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class ExportRequest:
    """One export: what, for which reader, where, and how.

    Attributes:
        stores: The feature files, which may be official ones.
        target: A name in :data:`~tspcli.exports.targets.TARGETS`.
        out: The folder to write, or the file for targets of one file.
        annotations: Annotation files of any dialect.
        subset: The subset of annotated videos for which no file gives one.
        options: The choices.
        concat: Feature files of further encoders, whose channels are appended to each row.
        columns: Names of columns of annotation tables by role, where they are not recognised.
    """

    stores: tuple[Path, ...]
    target: str
    out: Path
    annotations: tuple[Path, ...] = ()
    subset: str | None = None
    options: ExportOptions = ExportOptions()
    concat: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


def option_name(name: str) -> str:
    """The command line's name of an option."""
    special = {"grid_s": "--grid-seconds", "data_set": "--data-set"}
    return special.get(name, "--" + name.replace("_", "-"))
