"""``tsp export``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.annotations.dialects import DATA_SETS
from tspcli.cli.console import out_console, print_json, say, warn
from tspcli.cli.displays import watch
from tspcli.cli.options import (
    PATH,
    TableChoice,
    column_option,
    json_option,
    row_time_options,
    row_times,
    setting_options,
)
from tspcli.core.text import counted
from tspcli.exports.export_options import ExportOptions
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
            rate = float(value)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            self.fail(f"{value!r} is neither a positive number nor 'original'.", param, ctx)
        return rate


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
@setting_options(ExportOptions, ["missing", "name_prefix", "suffix", "length", "resize"])
@click.option(
    "--row-rate",
    type=RowRate(),
    help="Rows per second.  [gtad-thumos, segmentation: original]",
)
@click.option(
    "--grid-seconds",
    "grid_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Average rows onto this grid (bmt: 2.56 is that of I3D).  [qvhighlights: 2]",
)
@setting_options(ExportOptions, ["flow", "split_channels", "pad_channels", "dtype", "container"])
@click.option(
    "--data-set",
    type=TableChoice(DATA_SETS),
    help="Data set whose conventions to follow.  [default: detected from the names]",
)
@click.option("--per-subset", is_flag=True, help="official: one file per subset.")
@setting_options(ExportOptions, ["feature_frame"])
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
    from tspcli.exports import ExportRequest, export_features

    request = ExportRequest(
        stores,
        target,
        out,
        annotations,
        subset,
        ExportOptions(**{k: v for k, v in options.items() if v is not None}),
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
