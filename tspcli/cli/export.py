"""``tsp export``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.cli.console import err_console, out_console, print_json, printable
from tspcli.cli.options import PATH, POSITIVE, json_option, row_time_options
from tspcli.core.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from tspcli.exports import ExportReport

# Told here so that the help page needs no numpy; a test holds them against the registry.
TARGETS = (
    "official", "gtad-anet", "gtad-thumos", "bmn", "mmaction2", "bmt", "actionformer", "opentad",
    "pdvc", "npy",
)  # fmt: skip
RESIZES = ("linear", "centers", "bmn-pool", "roi-align")


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
@click.option("--to", "target", required=True, type=click.Choice(TARGETS), help="The reader.")
@click.option("--out", "-o", required=True, type=PATH, help="Folder (or HDF5 file) to write.")
@click.option(
    "--annotations",
    "-a",
    multiple=True,
    type=PATH,
    help="Annotations in any known dialect; may be repeated. Written again for the reader, "
    "filtered to the exported videos.",
)
@click.option("--subset", help="Subset of annotated videos for which no file tells one.")
@click.option("--label-ids", type=PATH, help="JSON list of class names whose order makes label_id.")
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
    help="keep, add:v_, strip:v_, or auto, which is as the reader needs them.",
)
@click.option("--suffix", default="", help="What follows names in file names.")
@click.option("--length", type=POSITIVE, help="Rows a video.  [bmn, mmaction2: 100]")
@click.option("--resize", type=click.Choice(RESIZES), help="How rows become --length rows.")
@click.option("--row-rate", type=RowRate(), help="Rows a second.  [gtad-thumos: original]")
@click.option(
    "--grid-seconds",
    "grid_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Average rows onto this grid (bmt: 2.56 is that of I3D).",
)
@click.option(
    "--flow",
    type=click.Choice(["zeros", "empty", "split"]),
    help="The stream that TSP lacks.  [gtad-thumos: split; bmt: zeros]",
)
@click.option("--split-channels", type=POSITIVE, help="Channels of the first half.")
@click.option(
    "--pad-channels", type=click.IntRange(min=0), help="Fill up to this width.  [bmt: 1024]"
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
    type=click.Choice(["activitynet", "thumos14"]),
    help="Whose conventions to follow.  [default: told from the names]",
)
@click.option("--per-subset", is_flag=True, help="official: one file a subset.")
@click.option(
    "--feature-frame",
    type=click.Choice(["fit", "keep"]),
    default="fit",
    show_default=True,
    help="BSN's dialect: make the loader's clock true, or leave the annotation's value.",
)
@row_time_options
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@json_option()
def command(
    stores: tuple[Path, ...],
    target: str,
    out: Path,
    annotations: tuple[Path, ...],
    subset: str | None,
    label_ids: Path | None,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write features as another program reads them, unmodified.

    Takes stores of this program and the released files, one or several at a time. Prints what the
    reader must be told, and writes it beside the export (HOW_TO_USE.txt).

    \b
    Examples:
      tsp export train.h5 valid.h5 --to gtad-anet --out anet.hdf5 -a activity_net.v1-3.min.json
      tsp export feats.h5 --to actionformer --out af/ -a activity_net.v1-3.min.json --missing skip
      tsp export dense.h5 --to gtad-thumos --out gtad/ -a val_Annotation.csv -a test_Annotation.csv
      tsp export released.h5 --to bmt --out bmt/ --frame-rate 15 --stride 16 --clip-length 16
    """
    from tspcli.exports import ExportOptions, ExportRequest, export_features
    from tspcli.store.store_set import given_sampling

    request = ExportRequest(stores, target, out, annotations, subset, ExportOptions(**options))
    sampling = given_sampling(frame_rate, stride, clip_length)
    console = err_console()
    with _progress(console) as on_video:
        report = export_features(request, sampling=sampling, label_ids=label_ids, on_video=on_video)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None] | None]:
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        "Exporting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show(report: ExportReport) -> None:
    notes = err_console()
    for note in report.notes:
        notes.print(f"Note: {printable(note)}", style="yellow", markup=False, soft_wrap=True)
    out = out_console()

    def say(text: str = "") -> None:
        out.print(printable(text), markup=False, soft_wrap=True)

    say(
        f"{counted(report.n_videos, 'video')}, {counted(report.n_rows, 'row')} of width "
        f"{report.width} "
        f"for {report.target} in {report.out}"
    )
    for path in report.annotations:
        say(f"  {path}")
    for clock, error in report.time_errors.items():
        say(f"Time ({clock}): {error.told()}")
    say()
    say(report.usage)
    sys.stdout.flush()
