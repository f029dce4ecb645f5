"""``tsp search``."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tspcli.cli.console import out_console, print_json, printable, say
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    NonNegativeFloat,
    json_option,
    row_time_options,
    row_times,
)
from tspcli.cli.rules import RuledCommand

if TYPE_CHECKING:
    from tspcli.analysis.moments import Span

_LIKE = re.compile(r"(?P<video>.+)@(?P<start>[0-9.:]+)-(?P<end>[0-9.:]+)")


@click.command("search", cls=RuledCommand, short_help="Find moments like an example.")
@click.argument("store", metavar="FEATS.h5", type=PATH)
@click.option(
    "--like",
    required=True,
    metavar="VIDEO@START-END",
    help="The example: a video of the store and its seconds, or minutes:seconds.",
)
@click.option(
    "--in",
    "others",
    multiple=True,
    type=PATH,
    help="Search this store of the same encoder instead; repeatable.",
)
@click.option("--top", type=POSITIVE, default=20, show_default=True, help="Most moments.")
@click.option(
    "--min-gap",
    type=NonNegativeFloat(),
    default=0.0,
    show_default=True,
    help="Least seconds between two moments of a video; 0 keeps them from overlapping.",
)
@row_time_options()
@json_option("the moments")
def command(
    store: Path,
    like: str,
    others: tuple[Path, ...],
    top: int,
    min_gap: float,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
    as_json: bool,
) -> None:
    """Find the moments most like an example, in all videos of a store.

    A moment is as long as the example. Its score is the cosine of its rows with those of the
    example once the mean of all rows is removed: 1 is equal, 0 unrelated.

    \b
    Examples:
      tsp search feats.h5 --like dancer@12.0-15.5
      tsp search feats.h5 --like v_1@1:02-1:07 --top 50 --min-gap 2 --json
      tsp search queries.h5 --like v_1@3-5 --in archive.h5
    """
    from tspcli.analysis.moments import MomentIndex
    from tspcli.store import open_store
    from tspcli.store.store_set import find_key, require_agreement_or_use

    span = _span(like)
    sampling = row_times(frame_rate, stride, clip_length)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_store(path, sampling=sampling)) for path in (store, *others)
        ]
        require_agreement_or_use(opened, sampling)
        span = span._replace(key=find_key(opened[0], span.key, store))
        among = list(range(1, len(opened))) or [0]
        index = MomentIndex(opened)
        if index.n_resident < index.n_rows:
            say(f"{index.n_rows - index.n_resident} of {index.n_rows} rows do not fit into memory.")
        found = index.search(span, among=among, top=top, min_gap_s=min_gap)
        paths = [str(one.path) for one in opened]
    if as_json:
        print_json(
            [
                {
                    "store": paths[m.store],
                    "video": m.key,
                    "start_s": round(m.start_s, 3),
                    "end_s": round(m.end_s, 3),
                    "score": round(m.score, 4),
                }
                for m in found
            ]
        )
        return
    from rich.table import Table

    table = Table("score", "video", "from", "to", box=None)
    for m in found:
        table.add_row(f"{m.score:.3f}", printable(m.key), f"{m.start_s:.2f} s", f"{m.end_s:.2f} s")
    out_console().print(table if found else "No other moment is as long as the example.")


def _span(like: str) -> Span:
    from tspcli.analysis.moments import Span
    from tspcli.annotations.text_files import Place, parse_time
    from tspcli.errors import UsageError

    match = _LIKE.fullmatch(like)
    if match is None:
        raise UsageError(
            f"{like!r} is not an example such as VIDEO@12.0-15.5.", option="like", value=like
        )
    start_s, end_s = (parse_time(match[name], Place("--like")) for name in ("start", "end"))
    return Span(match["video"], start_s, end_s)
