"""``tsp store``: list, rename and remove the videos of a store."""

from __future__ import annotations

from pathlib import Path

import click

from tspcli.cli.console import out_console, print_json, printable, say
from tspcli.cli.options import PATH, json_option
from tspcli.core.text import counted


@click.group("store", short_help="List, rename and remove the videos of a store.")
def command() -> None:
    """List, rename and remove the videos of a store.

    A changed store is written anew and replaces the old one only when it is complete; rows are
    compared with their checksums on the way.

    \b
    Example:
      tsp store list feats.h5
      tsp store rename feats.h5 v_old v_new
      tsp store remove feats.h5 v_mistake
    """


@command.command("list")
@click.argument("store", metavar="FEATS.h5", type=PATH)
@json_option()
def list_command(store: Path, as_json: bool) -> None:
    """Print the key of every video, one per line; `tsp inspect` shows more of each.

    \b
    Example:
      tsp store list feats.h5
    """
    from tspcli.store import open_store

    with open_store(store) as opened:
        keys = list(opened)
    if as_json:
        print_json({"store": str(store), "videos": keys})
        return
    for key in keys:
        say(printable(key), console=out_console())


@command.command()
@click.argument("store", metavar="FEATS.h5", type=PATH)
@click.argument("name")
@click.argument("new")
@json_option()
def rename(store: Path, name: str, new: str, as_json: bool) -> None:
    """Give the video NAME the key NEW, so that rows are kept when a video file is renamed.

    \b
    Example:
      tsp store rename feats.h5 v_old v_new
    """
    from tspcli.store.edit import rename_video

    old = rename_video(store, name, new)
    if as_json:
        print_json({"store": str(store), "old": old, "new": new})
        return
    say(f"{printable(old)} is now {printable(new)} in {store}", console=out_console())


@command.command()
@click.argument("store", metavar="FEATS.h5", type=PATH)
@click.argument("names", metavar="NAME ...", nargs=-1, required=True)
@json_option()
def remove(store: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Remove videos and their rows from a store.

    \b
    Example:
      tsp store remove feats.h5 v_mistake v_another
    """
    from tspcli.store.edit import remove_videos

    removed = remove_videos(store, names)
    if as_json:
        print_json({"store": str(store), "removed": removed})
        return
    say(f"removed {counted(len(removed), 'video')} from {store}", console=out_console())
