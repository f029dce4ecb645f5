"""``tsp merge``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tspcli.cli.console import out_console, print_json, printable

_PATH = click.Path(path_type=Path)


@click.command("merge", short_help="Join stores or shards into one.")
@click.argument("stores", metavar="FEATS.h5 ...", nargs=-1, required=True, type=_PATH)
@click.option("--out", "-o", required=True, type=_PATH, help="The store to write.")
@click.option("--overwrite", is_flag=True, help="Replace it if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def command(stores: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool) -> None:
    """Join stores, or the shards of one run, into one store.

    Stores made with other settings are refused, with each difference named; so is a video that two
    of them have.

    \b
    Examples:
      tsp merge feats.shard-*-of-4.h5 --out feats.h5
      tsp merge train.h5 valid.h5 --out all.h5
    """
    from tspcli.features.merge import merge_stores

    report = merge_stores(stores, out, overwrite=overwrite)
    if as_json:
        print_json(asdict(report))
        return
    out_console().print(
        printable(
            f"{sum(report.n_videos)} videos, {report.n_rows} rows of width {report.dim} from "
            f"{len(report.stores)} stores in {report.out}"
        ),
        markup=False,
        soft_wrap=True,
    )
