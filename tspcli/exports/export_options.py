"""What a user can choose about an export. Importing this needs no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from tspcli.core.settings import PositiveFloat, PositiveInt, Settings
from tspcli.errors import UsageError

Resize = Literal["linear", "centers", "bmn-pool", "roi-align"]
ROW_COUNTS = ("length", "row_rate", "grid_s")
"""Options that decide on the number of rows."""

MOST_CHANNELS = 65_536
"""The largest width for padding; a typing error would fill memory and disk."""


@dataclass(frozen=True)
class ExportOptions(Settings):
    """The choices of one export; None, or ``auto``, is the target's default.

    Raises:
        UsageError: If a value is out of range, or two options decide on the number of rows.
    """

    name_prefix: Annotated[
        str, Meta(description="keep, add:v_, strip:v_, or auto for what the reader needs.")
    ] = "auto"
    suffix: Annotated[str, Meta(description="Text after the names in file names.")] = ""
    length: Annotated[
        PositiveInt | None, Meta(description="Rows per video.  [bmn, mmaction2: 100]")
    ] = None
    resize: Annotated[Resize | None, Meta(description="How rows become --length rows.")] = None
    row_rate: PositiveFloat | Literal["original"] | None = None
    """Rows per second: a number, or ``original`` for the source video's frame rate."""
    grid_s: PositiveFloat | None = None
    """Seconds per row, onto whose grid rows are averaged."""
    flow: Annotated[
        Literal["zeros", "empty", "split"] | None,
        Meta(
            description="What to write as optical-flow features.  [gtad-thumos: split; bmt, "
            "online: zeros]"
        ),
    ] = None
    split_channels: Annotated[
        PositiveInt | None, Meta(description="Channels of the first half.  [default: half]")
    ] = None
    pad_channels: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_CHANNELS)] | None,
        Meta(description="Pad rows with zeros to this width.  [bmt: 1024]"),
    ] = None
    dtype: Annotated[Literal["float32", "float16"], Meta(description="Type of the numbers.")] = (
        "float32"
    )
    missing: Annotated[
        Literal["error", "skip", "list"] | None,
        Meta(
            description="Annotated videos without features; list writes missing_files.txt.  "
            "[default: error; opentad: list]"
        ),
    ] = None
    container: Annotated[
        Literal["npy", "hdf5"] | None,
        Meta(description="actionformer: a file per video, or one for all.  [default: npy]"),
    ] = None
    data_set: str | None = None
    """The data set whose conventions names, annotations and configuration follow; detected from
    the names if None."""
    per_subset: bool = False
    """One file per subset instead of one for all (``official``)."""
    feature_frame: Annotated[
        Literal["fit", "keep"],
        Meta(
            description="BSN's dialect: make the loader's clock true, or keep the annotated value."
        ),
    ] = "fit"
    overwrite: bool = False
    """Replace an earlier export."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = [name for name in ROW_COUNTS if getattr(self, name) is not None]
        if len(ways) > 1:
            raise UsageError(
                f"{option_name(ways[0])} and {option_name(ways[1])} exclude each other.",
                option=option_name(ways[1]),
            )

    def changed(self) -> set[str]:
        """The names of the options that differ from the defaults."""
        return {f.name for f in fields(self) if getattr(self, f.name) != f.default}


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
    return "--grid-seconds" if name == "grid_s" else f"--{name.replace('_', '-')}"
