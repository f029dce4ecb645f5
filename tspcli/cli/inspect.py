"""``tsp inspect``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.cli.console import out_console, print_json, print_table, printable, say
from tspcli.cli.options import PATH, POSITIVE, json_option, row_time_options, row_times
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

    from tspcli.analysis.inspect import GlobalSummary, RowView, StoreSummary, VideoSummary


_LEAST_COLUMNS = 14
"""Of a value beside a name that is not folded."""


@click.command("inspect", cls=RuledCommand, short_help="Show what a store holds.")
@click.argument("store", metavar="FEATS.h5", type=PATH)
@click.argument("video", required=False)
@ruled_option(
    "--neighbours",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    requires=["video"],
    help="Neighbours per row.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Read every row, verify checksums and look for rows that are not finite; exit with 1 if "
    "something is wrong.",
)
@click.option(
    "--limit", type=POSITIVE, default=50, show_default=True, help="Most lines of the table."
)
@row_time_options()
@json_option("everything")
def command(
    store: Path,
    video: str | None,
    neighbours: int,
    check: bool,
    limit: int,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
    as_json: bool,
) -> int:
    """Show what a store holds; with VIDEO, its rows with their seconds, norms and neighbours.

    A file of global features (`tsp gvf`) is shown too; with VIDEO, the videos most like it.

    \b
    Examples:
      tsp inspect feats.h5
      tsp inspect feats.h5 --check
      tsp inspect feats.h5 v_sJFgo9H6zNo --neighbours 5
      tsp inspect released.h5 --frame-rate 15 --stride 16 --clip-length 16 --json
    """
    from tspcli.analysis.inspect import summarize, view_video
    from tspcli.errors import UsageError
    from tspcli.store import open_store
    from tspcli.store.gvf import is_gvf
    from tspcli.store.store_set import find_video, require_agreement

    sampling = row_times(frame_rate, stride, clip_length)
    is_global = is_gvf(store)
    if is_global and sampling is not None:
        raise UsageError(
            "Global features have no times: --frame-rate, --stride and --clip-length do not apply."
        )
    if is_global:
        _inspect_global(store, video, neighbours, limit, as_json)
        return 0
    with open_store(store, sampling=sampling) as opened:
        require_agreement(opened, sampling)
        if video is None:
            summary = summarize(opened, check=check)
            if as_json:
                print_json(summary.to_dict())
            else:
                _show_store(summary, limit)
            return 1 if any(v.intact is False or v.not_finite for v in summary.videos) else 0
        features = find_video(opened, video)
        rows = view_video(features, n_neighbours=neighbours)
    if as_json:
        print_json({"key": features.key, "rows": [vars(row) for row in rows]})
    else:
        _show_video(features.key, rows, limit)
    return 1 if check and not all(math.isfinite(row.norm) for row in rows) else 0


def _inspect_global(
    path: Path, video: str | None, neighbours: int, limit: int, as_json: bool
) -> None:
    from tspcli.analysis.inspect import summarize_global, view_global
    from tspcli.store.gvf import read_gvf

    features = read_gvf(path)
    if video is not None:
        found = view_global(features, video, n_neighbours=neighbours)
        if as_json:
            print_json(vars(found))
            return
        nearest = "  ".join(f"{other} ({cosine:.3f})" for other, cosine in found.neighbours)
        text = f"{found.key}: norm {found.norm:.3f}, nearest videos (cosine): {nearest or 'none'}"
        say(text, console=out_console())
        return
    summary = summarize_global(features)
    if as_json:
        print_json(summary.to_dict())
        return
    _show_head(
        summary,
        ("holds", "global features: one vector a video, for pretraining"),
        ("videos", f"{len(summary.videos)}"),
        ("vectors", f"width {summary.dim}, pooled by {summary.pool or 'unknown'}"),
    )
    _show_global_videos(summary, limit)


def _show_global_videos(summary: GlobalSummary, limit: int) -> None:
    from rich.markup import escape

    rows = [
        (
            escape(printable(video.key)),
            "?" if video.n_rows is None else str(video.n_rows),
            f"{video.norm:.3f}",
        )
        for video in summary.videos[:limit]
    ]
    out = out_console()
    out.print()
    print_table(("video", "of rows", "norm"), rows, texts=["video"], console=out)
    _more(len(summary.videos), limit)
    sys.stdout.flush()


def _show_head(summary: StoreSummary | GlobalSummary, *lines: tuple[str, str]) -> None:
    """What the file is and how it was made."""
    out = out_console()
    head = {
        "file": summary.path,
        **dict(lines),
        "encoder": summary.encoder or "unknown (a file of another program)",
        "weights": summary.weights_in_words or "unknown",
        **_recipe_line(summary),
        "written by": f"tspcli {summary.tool_version}" if summary.tool_version else "unknown",
    }
    out.print(_grid(head, out, "bold"))
    if summary.settings:
        out.print("\n[bold]settings[/]")
        out.print(_grid({f"  {name}": value for name, value in summary.settings.items()}, out))


def _recipe_line(summary: StoreSummary | GlobalSummary) -> dict[str, str]:
    recipe = getattr(summary, "recipe", None)
    if recipe is None:
        return {}
    deviations = "; ".join(recipe["deviations"])
    return {"recipe": f"{recipe['name']}, but {deviations}" if deviations else recipe["name"]}


def _grid(values: Mapping[str, object], console: Console, style: str | None = None) -> Table:
    """Names and their values, which are folded before the names are."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    whole = max(map(len, values)) + _LEAST_COLUMNS <= console.width
    grid.add_column(no_wrap=whole, overflow="fold", style=style)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(escape(name), escape(printable(str(value))))
    return grid


def _show_store(summary: StoreSummary, limit: int) -> None:
    from rich.markup import escape

    out = out_console()
    _show_head(
        summary,
        ("videos", f"{len(summary.videos)}"),
        ("rows", f"{summary.n_rows} of width {', '.join(map(str, summary.dims)) or '?'}"),
        ("seconds", "unknown" if summary.seconds is None else f"{summary.seconds:.1f}"),
    )
    checked = any(video.is_checked for video in summary.videos)
    titles = ["video", "rows", "covers s", "of s", "fps", "decoder"]
    titles += ["content"] if checked else []
    rows = [
        [
            escape(printable(video.key)),
            str(video.n_rows),
            _number(video.covered_s),
            _number(video.duration_s),
            _number(video.source_fps, 3),
            escape(video.decoder or ""),
            *([_content(video)] if checked else []),
            escape(printable("; ".join(video.warnings))),
        ]
        for video in summary.videos[:limit]
    ]
    out.print()
    texts = ["video", "decoder", "content", "warnings"]
    print_table([*titles, "warnings"], rows, texts=texts, console=out)
    _more(len(summary.videos), limit)
    _show_warnings_and_failures(summary, out)
    sys.stdout.flush()


def _show_warnings_and_failures(summary: StoreSummary, out: Any) -> None:
    from rich.markup import escape

    videos = summary.videos
    warned = sum(bool(video.warnings) for video in videos)
    closing = [
        counted(warned, "video") + " with warnings",
        counted(len(summary.failures), "failure"),
    ]
    if any(video.is_checked for video in videos):
        odd = sum(bool(video.not_finite) for video in videos)
        damaged = sum(video.intact is False for video in videos)
        closing.append(counted(odd, "video") + " with rows that are not finite")
        closing.append(counted(damaged, "damaged video"))
        style = "bold red" if odd or damaged else None
    else:
        closing.append("rows unread (--check reads them)")
        style = None
    out.print("\n" + ", ".join(closing), style=style)
    if summary.failures:
        titles = ("failed", "reason", "detail")
        rows = [
            [escape(printable(str(failure[name] or ""))) for name in ("key", "reason", "detail")]
            for failure in summary.failures
        ]
        print_table(titles, rows, texts=titles, console=out)


def _show_video(key: str, rows: list[RowView], limit: int) -> None:
    out = out_console()
    out.print(printable(key), style="italic", markup=False)
    titles = ("row", "start s", "centre s", "end s", "norm", "nearest rows (cosine)")
    cells = [
        (
            str(row.row),
            _number(row.start_s, 3),
            _number(row.center_s, 3),
            _number(row.end_s, 3),
            f"{row.norm:.3f}",
            "  ".join(f"{other} ({cosine:.3f})" for other, cosine in row.neighbours),
        )
        for row in rows[:limit]
    ]
    print_table(titles, cells, texts=titles[-1:], console=out)
    _more(len(rows), limit)
    odd = [row.row for row in rows if not math.isfinite(row.norm)]
    if odd:
        verb = "is" if len(odd) == 1 else "are"
        out.print(
            f"\n{counted(len(odd), 'row')} of {len(rows)} {verb} not finite (the first: {odd[0]})",
            style="bold red",
        )
    sys.stdout.flush()


def _more(count: int, limit: int) -> None:
    if count > limit:
        say(f"… and {count - limit} more (--limit {count}, or --json)")


def _number(value: float | None, digits: int = 1) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _content(video: VideoSummary) -> str:
    if video.intact is False:
        return "[bold red]damaged[/]"
    text = "intact" if video.intact else "no checksum"
    return f"[bold red]{video.not_finite} rows not finite[/]" if video.not_finite else text
