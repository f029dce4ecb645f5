"""``tsp merge``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tspcli.cli.console import out_console, print_json, say, warn
from tspcli.cli.options import PATH, json_option
from tspcli.core.text import counted


@click.command("merge", short_help="Join stores or shards into one.")
@click.argument("stores", metavar="FEATS.h5 ...", nargs=-1, required=True, type=PATH)
@click.option("--out", "-o", required=True, type=PATH, help="The store to write.")
@click.option("--overwrite", is_flag=True, help="Replace it if it exists.")
@click.option(
    "--partial", is_flag=True, help="Join shards although some are missing or planned otherwise."
)
@click.option("--link", is_flag=True, help="Write links to the stores instead of their rows.")
@json_option()
def command(
    stores: tuple[Path, ...], out: Path, overwrite: bool, partial: bool, link: bool, as_json: bool
) -> None:
    """Join stores, or the shards of one run, into one store.

    Stores made with other settings are refused, with each difference named; so are a video that two
    of them have, and shards that are incomplete or were not planned over the same videos.

    With --link the stores have to stay in the folder of the new one, or below; any HDF5 program
    follows the links.

    \b
    Examples:
      tsp merge feats.shard-*-of-4.h5 --out feats.h5
      tsp merge feats.shard-*-of-999.h5 --out feats.h5 --link
      tsp merge train.h5 valid.h5 --out all.h5
    """
    from tspcli.store.merge import merge_stores

    report = merge_stores(stores, out, overwrite=overwrite, partial=partial, link=link)
    if as_json:
        print_json(asdict(report))
        return
    if report.missing_shards:
        warn(f"without {', '.join(report.missing_shards)}")
    for text in report.differing_plans:
        warn(text)
    if report.n_failed:
        warn(
            f"{counted(report.n_failed, 'video')} failed in these runs; "
            f"`tsp inspect {report.out}` names them"
        )
    say(
        f"{counted(sum(report.n_videos), 'video')}, {counted(report.n_rows, 'row')} of width "
        f"{report.dim} from {counted(len(report.stores), 'store')} in {report.out}",
        console=out_console(),
    )
