"""``tsp export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tspcli.annotations.dialects import DATA_SETS
from tspcli.cli.console import out_console, print_json, say, warn
from tspcli.cli.displays import watch
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    TableChoice,
    column_option,
    json_option,
    row_time_options,
    row_times,
)
from tspcli.core.text import counted
from tspcli.exports.export_options import Resize
from tspcli.exports.targets import TARGETS

if TYPE_CHECKING:
    from tspcli.exports import ExportReport


class RowRate(click.ParamType):
    """A number, or ``original``."""

    name = "original|RATE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "original":
            return "original"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'original'.", param, ctx)


@click.command("export", short_help="Write features as another program reads them.")
@click.argument("stores", metavar="FEATS.h5 ...", nargs=-1, required=True, type=PATH)
@click.option("--to", "target", required=True, type=TableChoice(TARGETS), help="The reader.")
@click.option("--out", "-o", required=True, type=PATH, help="Folder (or HDF5 file) to write.")
@click.option(
    "--annotations",
    "-a",
    multiple=True,
    type=PATH,
    help="Annotations in any known dialect; may be repeated. They are rewritten for the reader, "
    "filtered to the exported videos.",
)
@click.option(
    "--concat",
    multiple=True,
    type=PATH,
    metavar="FEATS.h5",
    help="Features of another encoder, of the same videos at the same times, whose channels are "
    "appended to each row; may be repeated.",
)
@column_option()
@click.option("--subset", help="Subset of annotated videos for which no file gives one.")
@click.option(
    "--label-ids", type=PATH, help="JSON list of class names; a name's position is its label_id."
)
@click.option(
    "--missing",
    type=click.Choice(["error", "skip", "list"]),
    help="Annotated videos without features; list writes missing_files.txt.  [default: error; "
    "opentad: list]",
)
@click.option(
    "--name-prefix",
    default="auto",
    show_default=True,
    metavar="RULE",
    help="keep, add:v_, strip:v_, or auto for what the reader needs.",
)
@click.option("--suffix", default="", help="Text after the names in file names.")
@click.option("--length", type=POSITIVE, help="Rows per video.  [bmn, mmaction2: 100]")
@click.option(
    "--resize", type=click.Choice(get_args(Resize)), help="How rows become --length rows."
)
@click.option("--row-rate", type=RowRate(), help="Rows per second.  [gtad-thumos: original]")
@click.option(
    "--grid-seconds",
    "grid_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Average rows onto this grid (bmt: 2.56 is that of I3D).",
)
@click.option(
    "--flow",
    type=click.Choice(["zeros", "empty", "split"]),
    help="What to write as optical-flow features.  [gtad-thumos: split; bmt: zeros]",
)
@click.option("--split-channels", type=POSITIVE, help="Channels of the first half.")
@click.option(
    "--pad-channels",
    type=click.IntRange(min=0),
    help="Pad rows with zeros to this width.  [bmt: 1024]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the numbers.",
)
@click.option("--container", type=click.Choice(["npy", "hdf5"]), help="For actionformer.")
@click.option(
    "--data-set",
    type=TableChoice(DATA_SETS),
    help="Data set whose conventions to follow.  [default: detected from the names]",
)
@click.option("--per-subset", is_flag=True, help="official: one file per subset.")
@click.option(
    "--feature-frame",
    type=click.Choice(["fit", "keep"]),
    default="fit",
    show_default=True,
    help="BSN's dialect: make the loader's clock true, or keep the annotated value.",
)
@row_time_options()
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@json_option()
def command(
    stores: tuple[Path, ...],
    target: str,
    out: Path,
    annotations: tuple[Path, ...],
    columns: dict[str, str],
    subset: str | None,
    label_ids: Path | None,
    concat: tuple[Path, ...],
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write features as another program reads them, unmodified.

    Takes one or several stores, which may be the released files. Prints how to configure the
    reader, and writes that to HOW_TO_USE.txt in the export.

    \b
    Examples:
      tsp export train.h5 valid.h5 --to gtad-anet --out anet.hdf5 -a activity_net.v1-3.min.json
      tsp export feats.h5 --to actionformer --out af/ -a activity_net.v1-3.min.json --missing skip
      tsp export rgb.h5 --concat flow.h5 --to official --out both.h5
      tsp export dense.h5 --to gtad-thumos --out gtad/ -a val_Annotation.csv -a test_Annotation.csv
      tsp export released.h5 --to bmt --out bmt/ --frame-rate 15 --stride 16 --clip-length 16
    """
    from tspcli.exports import ExportOptions, ExportRequest, export_features

    request = ExportRequest(
        stores,
        target,
        out,
        annotations,
        subset,
        ExportOptions(**options),
        concat,
        columns,
    )
    sampling = row_times(frame_rate, stride, clip_length)
    with watch() as reporter:
        report = export_features(request, sampling=sampling, label_ids=label_ids, reporter=reporter)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)


def _show(report: ExportReport) -> None:
    for note in report.notes:
        warn(note)
    out = out_console()
    lines = [
        f"{counted(report.n_videos, 'video')}, {counted(report.n_rows, 'row')} of width "
        f"{report.width} for {report.target} in {report.out}",
        *(f"  {path}" for path in report.annotations),
        *(f"Time ({clock}): {error.line()}" for clock, error in report.time_errors.items()),
        "",
        report.usage,
    ]
    for line in lines:
        say(line, console=out)
    sys.stdout.flush()
