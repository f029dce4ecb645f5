"""``tsp compare``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tspcli.cli.console import out_console, print_json, print_table, printable, say
from tspcli.cli.options import (
    PATH,
    POSITIVE,
    column_option,
    json_option,
    row_time_options,
    row_times,
)
from tspcli.cli.rules import RuledCommand
from tspcli.core.text import counted

if TYPE_CHECKING:
    from tspcli.analysis.compare import Comparison

_STYLES = {
    "same": "green",
    "rows differ": "yellow",
    "shifted": "yellow",
    "other scale": "yellow",
    "other times": "yellow",
    "other preprocessing": "yellow",
    "other weights": "red",
    "not finite": "red",
}


@click.command("compare", cls=RuledCommand, short_help="Report how two stores differ.")
@click.argument("first", metavar="A.h5", type=PATH)
@click.argument("second", metavar="B.h5|FILE|FOLDER", type=PATH)
@click.option("--video", "videos", multiple=True, help="Only this video; may be repeated.")
@click.option(
    "--annotations",
    "-a",
    multiple=True,
    type=PATH,
    help="Annotations in any known dialect, by which separation is measured; may be repeated.",
)
@column_option(requires=["annotations"])
@click.option("--limit", type=POSITIVE, default=50, show_default=True, help="Lines of the table.")
@click.option("--expect-same", is_flag=True, help="Exit with 1 unless every video is the same.")
@row_time_options()
@json_option("everything")
def command(
    first: Path,
    second: Path,
    videos: tuple[str, ...],
    annotations: tuple[Path, ...],
    columns: dict[str, str],
    limit: int,
    expect_same: bool,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
    as_json: bool,
) -> int:
    """Report how the features of the same videos in two stores differ.

    Shows row counts, the cosine of rows at the same place, the shift at which rows fit best, and a
    verdict: same, rows differ (they are named), shifted, other scale, other times, other
    preprocessing, other weights, or not finite. Released files can be compared, too, and rows as
    others host them: .npy, .npz, .pt or .pkl, a folder with one file per video or a file with all
    of them, (rows, width) or (width, rows). Nothing that would run code is loaded.

    With --annotations it also shows how well each store separates foreground from background.

    \b
    Examples:
      tsp compare mine.h5 r2plus1d_34-tsp_on_activitynet-valid_features.h5
      tsp compare before.h5 after.h5 --expect-same
      tsp compare mine.h5 thumos14_features/
      tsp compare tac.h5 tsp.h5 -a activity_net.v1-3.min.json
    """
    from tspcli.analysis.compare import compare_stores
    from tspcli.annotations import read_together
    from tspcli.store import open_store
    from tspcli.store.hosted import is_hosted, open_hosted
    from tspcli.store.store_set import require_agreement_or_use

    sampling = row_times(frame_rate, stride, clip_length)
    with ExitStack() as opened:
        a = opened.enter_context(open_store(first, sampling=sampling))
        if is_hosted(second):
            hosted = open_hosted(second, a, _read, sampling=sampling)
            b = opened.enter_context(hosted)
        else:
            b = opened.enter_context(open_store(second, sampling=sampling))
        require_agreement_or_use([a, b], sampling)
        given = read_together(annotations, columns=columns) if annotations else None
        annotated = None if given is None else given.videos
        comparison = compare_stores(a, b, videos=videos or None, annotated=annotated)
    if as_json:
        print_json(comparison.to_dict())
    else:
        _show(comparison, limit)
    return 1 if expect_same and not comparison.all_same else 0


def _read(path: Path) -> Any:
    """What a file of torch, or a pickle of arrays, holds; nothing in it is executed."""
    from tspcli.encoders.weight_files import read_weight_file

    return read_weight_file(path).content


def _show(comparison: Comparison, limit: int) -> None:
    from rich.markup import escape

    out = out_console()
    rows = []
    # What is not the same comes first, so that no limit hides it.
    for video in sorted(comparison.videos, key=lambda v: v.verdict == "same")[:limit]:
        lowest = "" if video.lowest is None else f"{video.lowest[1]:.4f} ({video.lowest[0]})"
        # Between rows of other weights some shift fits best as well, and means nothing.
        told = video.verdict != "other weights" and video.shifted_cosine is not None
        shift = f"{video.shift_rows:+d}" if told and video.shift_rows else "0" if told else ""
        if shift not in ("", "0") and video.shift_s is not None:
            shift += f" = {video.shift_s:+.3f} s"
        verdict = f"[{_STYLES[video.verdict]}]{video.verdict}[/]"
        if video.verdict != "same" or video.n_rows[0] != video.n_rows[1]:
            verdict += f": {escape(video.reason)}"
        rows.append(
            (
                escape(printable(video.key)),
                f"{video.n_rows[0]} / {video.n_rows[1]}",
                "" if video.cosine is None else f"{video.cosine:.5f}",
                lowest,
                shift,
                verdict,
            )
        )
    titles = ("video", "rows", "cosine", "lowest (row)", "best shift", "verdict")
    print_table(titles, rows, texts=["video", "verdict"], console=out)
    if len(comparison.videos) > limit:
        say(f"… and {len(comparison.videos) - limit} more (--limit, or --json)")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items())
    style = _STYLES[comparison.verdict]
    out.print(
        f"\n[bold {style}]{comparison.verdict}[/]: {counts} of "
        f"{counted(len(comparison.videos), 'common video')}; "
        f"{len(comparison.only_a)} only in the first store, "
        f"{len(comparison.only_b)} only in the second",
        soft_wrap=True,
    )
    if comparison.separations is not None:
        first, second = comparison.separations
        out.print(
            f"separation, mean of {counted(comparison.n_separated, 'annotated video')}: "
            f"{first:+.3f} in the first store, {second:+.3f} in the second",
            soft_wrap=True,
        )
    if comparison.verdict == "rows differ" and not comparison.settings_known:
        text = "The official code starts some clips one frame early; such rows are among these."
        say(text, console=out)
    for difference in comparison.differences:
        say(f"  setting {difference}", console=out)
    sys.stdout.flush()
