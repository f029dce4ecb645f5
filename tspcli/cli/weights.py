"""``tsp weights``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tspcli.cli.console import err_console, out_console, print_json, print_table, printable
from tspcli.cli.options import json_option

if TYPE_CHECKING:
    from tspcli.fetch.url import Progress


@click.group("weights", short_help="List, fetch and convert pretrained weights.")
def command() -> None:
    """List, fetch and convert pretrained weights.

    \b
    Example:
      tsp weights list
      tsp weights fetch i3d-kinetics400
    """


@command.command("list")
@click.option("--backbone", help="Only those of this backbone.")
@json_option("all")
def list_command(backbone: str | None, as_json: bool) -> None:
    """List the weights of the registry; those that are here need no network.

    \b
    Example:
      tsp weights list --backbone r2plus1d_34
    """
    from tspcli.encoders.weights import DEFAULT_WEIGHTS, list_weights

    entries = [e for e in list_weights() if backbone in (None, e.backbone)]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
        return
    rows = [
        (
            entry.name,
            str(entry.feature_dim),
            "yes" if entry.is_local else "",
            entry.trained_on + (" (the default)" if entry.name == DEFAULT_WEIGHTS else ""),
        )
        for entry in entries
    ]
    titles = ("name", "width", "here", "trained on")
    print_table(titles, rows, texts=["name", "here", "trained on"], console=out_console())
    if not entries:
        err_console().print(f"No weights of backbone {printable(str(backbone))}.", markup=False)


@command.command("show")
@click.argument("name")
@json_option("all")
def show_command(name: str, as_json: bool) -> None:
    """Show what is known of weights: source, checksum, preprocessing, licence, citation.

    \b
    Example:
      tsp weights show r2plus1d_34-tsp_on_activitynet
    """
    from tspcli.encoders.weights import find_weights

    entry = find_weights(name)
    if as_json:
        print_json(entry.to_dict())
        return
    from rich.table import Table

    size = "unknown" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:.1f} MB"
    rows = {
        "name": entry.name,
        "backbone": entry.backbone,
        "features": str(entry.feature_dim),
        "trained on": entry.trained_on,
        "classes": entry.classes or "",
        "source": entry.source,
        "sha256": _checksum(entry.sha256),
        "size": size,
        "file": f"{entry.local_path()} ({'here' if entry.is_local else 'not fetched yet'})",
        "licence": entry.licence,
        "cite": entry.citation,
        "note": entry.note,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for title, value in rows.items():
        if value:
            table.add_row(title, printable(value))
    out_console().print(table)


def _checksum(sha256: str) -> str:
    if not sha256:
        return "not published: what arrives is not verified"
    return sha256 + ("..." if len(sha256) < 64 else "")


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch_command(names: tuple[str, ...]) -> None:
    """Download weights, resuming what was interrupted, and verify their checksum.

    Prints the path of each file. TSPCLI_HOME says where they are kept; TSPCLI_WEIGHTS_URL names a
    mirror that has them under the same file names.

    \b
    Example:
      tsp weights fetch r2plus1d_34-tsp_on_activitynet
    """
    from tspcli.encoders.weights import fetch_weights, find_weights

    for entry in [find_weights(name) for name in names]:
        with _progress_bar(entry.name) as progress:
            path = fetch_weights(entry.name, progress)
        click.echo(str(path))


@contextmanager
def _progress_bar(title: str) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = err_console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def progress(have: int, total: int | None) -> None:
            bar.update(task, completed=have, total=total)

        yield progress


@command.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--backbone", help="The backbone, if it should not be detected from the names in IN.")
@click.option("--strip-heads", is_flag=True, help="Leave the classification layers out.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def convert_command(
    source: str, target: Path, backbone: str | None, strip_heads: bool, overwrite: bool
) -> None:
    """Write a checkpoint in the layout of the official TSP code.

    IN is a file of any layout that this program reads, a run's folder or a name from the registry.
    Optimizer state and the like are left out.

    \b
    Example:
      tsp weights convert i3d-kinetics400 i3d.pth
    """
    from tspcli.encoders.loading import convert_checkpoint
    from tspcli.errors import UsageError

    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists.", remedy="Give another name, or --overwrite.")
    with _progress_bar(source) as progress:
        done = convert_checkpoint(
            source, target, backbone=backbone, strip_heads=strip_heads, on_progress=progress
        )
    click.echo(f"{target}: {done.backbone}, heads {done.heads.to_dict()}", err=True)
