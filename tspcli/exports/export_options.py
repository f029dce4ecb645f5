"""What a user can choose about an export. The defaults are the targets' own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tspcli.errors import UsageError
from tspcli.sampling.resampling import METHODS

Flow = Literal["zeros", "empty", "split"]
Missing = Literal["error", "skip", "list"]
Dtype = Literal["float32", "float16"]
Container = Literal["npy", "hdf5"]
DataSet = Literal["activitynet", "thumos14"]
FeatureFrame = Literal["fit", "keep"]

MOST_CHANNELS = 65_536
"""Width to which channels are padded; a slip of the pen would fill memory and disk."""


@dataclass(frozen=True)
class ExportOptions:
    """The choices of one export; None (for some, ``auto``) is the target's default.

    Attributes:
        name_prefix: ``auto``, ``keep``, ``add:v_`` or ``strip:v_``.
        suffix: What follows the name in file names.
        length: Rows a video gets.
        resize: How: ``linear``, ``centers``, ``bmn-pool`` or ``roi-align``.
        row_rate: Rows a second: a number, or ``original`` for the source video's frame rate.
        grid_s: Seconds a row: rows are averaged onto this grid.
        flow: What a second stream, which TSP does not have, gets.
        split_channels: Channels of the first part for ``flow="split"``; half of them if None.
        pad_channels: Width to which zeros are appended; 0 for none.
        dtype: Type of the numbers.
        missing: What to do about annotated videos without features.
        container: ActionFormer reads both npy files and one HDF5 file.
        data_set: Whose conventions the names, annotations and configuration follow.
        per_subset: One file a subset instead of one for all (``official``).
        feature_frame: In BSN's dialect, ``fit`` makes the loader's clock true, ``keep`` leaves what
            the annotation says.
        overwrite: Replace an earlier export.
    """

    name_prefix: str = "auto"
    suffix: str = ""
    length: int | None = None
    resize: str | None = None
    row_rate: float | Literal["original"] | None = None
    grid_s: float | None = None
    flow: Flow | None = None
    split_channels: int | None = None
    pad_channels: int | None = None
    dtype: Dtype = "float32"
    missing: Missing | None = None
    container: Container | None = None
    data_set: DataSet | None = None
    per_subset: bool = False
    feature_frame: FeatureFrame = "fit"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize not in METHODS:
            raise UsageError(
                f"{self.resize!r} is no way to resize.", remedy=f"Use one of {', '.join(METHODS)}."
            )
        for name in ("length", "row_rate", "grid_s", "split_channels"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise UsageError(
                    f"{option_name(name)} {value} is no positive number.",
                    remedy="Give one that is positive and finite.",
                )
        if (self.pad_channels or 0) > MOST_CHANNELS:
            raise UsageError(
                f"--pad-channels {self.pad_channels} is more than {MOST_CHANNELS}.",
                remedy="Give the width that the reader has.",
            )
        ways = [n for n in ("length", "row_rate", "grid_s") if getattr(self, n) is not None]
        if len(ways) > 1:
            raise UsageError(
                f"{option_name(ways[0])} and {option_name(ways[1])} exclude each other.",
                remedy="Give one of them.",
            )

    def changed(self) -> set[str]:
        """The names of the options that differ from the defaults."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class ExportRequest:
    """One export: what, to whom, where, and how.

    Attributes:
        stores: The feature files, official ones too.
        target: A name in :data:`tspcli.exports.TARGETS`.
        out: The folder, or for targets of one file that file, to write.
        annotations: Annotation files, of any dialect.
        subset: The subset of annotated videos for which no file tells one.
        options: The choices.
    """

    stores: tuple[Path, ...]
    target: str
    out: Path
    annotations: tuple[Path, ...] = ()
    subset: str | None = None
    options: ExportOptions = ExportOptions()


def option_name(name: str) -> str:
    """The command line's name of an option."""
    special = {"grid_s": "--grid-seconds", "data_set": "--data-set"}
    return special.get(name, "--" + name.replace("_", "-"))
