"""``tsp plot``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tspcli.cli.console import out_console, printable, say, warn
from tspcli.cli.options import PATH, column_option, row_time_options, row_times
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from tspcli.analysis import PlotData, Thumbnail
    from tspcli.analysis.plot_data import FeatureView
    from tspcli.annotations import AnnotationSet, Segment
    from tspcli.sampling import Sampling

_MOST_COLUMNS = 56
_LATE_S = 2.0


@click.command("plot", cls=RuledCommand, short_help="Draw the features of one video.")
@click.argument("store", metavar="FEATS.h5", type=PATH)
@click.argument("video")
@click.option("--out", "-o", type=PATH, help="Picture: .png, .svg, .pdf or .html; repeatable.",
              multiple=True)  # fmt: skip
@click.option("--against", type=PATH, help="A second store, drawn next to the first.")
@click.option("--title", "titles", multiple=True, help="Title of the store; repeatable.")
@click.option(
    "--annotations", "-a", type=PATH, multiple=True, help="Annotations whose segments are drawn."
)
@column_option(requires=["annotations"])
@ruled_option(
    "--video", "video_file", type=PATH, requires=["out"], help="The video itself, for thumbnails."
)
@ruled_option(
    "--thumbnails",
    type=click.IntRange(1, 32),
    default=8,
    show_default=True,
    requires=["video_file"],
    help="Number of thumbnails.",
)
@click.option(
    "--dpi",
    type=click.IntRange(30, 1200),
    default=200,
    show_default=True,
    help="Dots per inch of PNG.",
)
@ruled_option(
    "--own-scales",
    is_flag=True,
    requires=["against"],
    help="A colour scale for each store instead of one for both.",
)
@row_time_options()
def command(
    store: Path,
    video: str,
    out: tuple[Path, ...],
    against: Path | None,
    titles: tuple[str, ...],
    annotations: tuple[Path, ...],
    columns: dict[str, str],
    video_file: Path | None,
    thumbnails: int,
    dpi: int,
    own_scales: bool,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
) -> None:
    """Draw the features of one video: how its clips resemble each other, and how they change.

    Without --out the drawing is in the terminal. With annotations, a silhouette score says how
    well actions and background are separated: 1 is best, 0 means no separation.

    \b
    Examples:
      tsp plot feats.h5 v_sJFgo9H6zNo
      tsp plot feats.h5 v_sJFgo9H6zNo -o matrix.png -a groundtruth.csv --video v_sJFgo9H6zNo.mp4
      tsp plot tac.h5 v_sJFgo9H6zNo --against tsp.h5 --title TAC --title TSP -o page.html
    """
    from tspcli.analysis import PlotData, write_page, write_picture
    from tspcli.annotations import read_together
    from tspcli.errors import UsageError

    terminal = out_console()
    if not out and not terminal.is_terminal:
        raise UsageError(
            "There is no terminal to draw in.", remedy="Give --out picture.png (or .svg, .html)."
        )
    stores = [store] if against is None else [store, against]
    _check_given(len(stores), out, titles)
    sampling = row_times(frame_rate, stride, clip_length)
    given = read_together(annotations, columns=columns)
    key, views, segments = _load(stores, video, titles, given, sampling)
    frames = [] if video_file is None else _frames(video_file, views, thumbnails)
    data = PlotData(key, views, segments, frames, own_scales)
    for note in _notes(data, out):
        warn(note)
    for path in out:
        if path.suffix.lower() == ".html":
            write_page(data, path)
        else:
            write_picture(data, path, dpi=dpi)
        say(f"Wrote {path}")
    if terminal.is_terminal:
        _draw(terminal, data)
    else:
        for view in views:
            if view.separation is not None:
                terminal.print(f"{view.title}: separation {view.separation:+.3f}", markup=False)
    sys.stdout.flush()


def _notes(data: PlotData, out: tuple[Path, ...]) -> list[str]:
    from tspcli.analysis.picture import undrawable
    from tspcli.analysis.plot_data import OTHER_COLOR, segment_colors

    notes = [
        f"the common scale hides most of {title}; --own-scales shows it."
        for title in data.flattened
    ]
    others = [label for label, color in segment_colors(data).items() if color == OTHER_COLOR]
    if others:
        notes.append(
            f"{counted(len(others), 'label')} of {len(data.labels)} have no colour left and are "
            f"black (the first: {others[0]!r})."
        )
    pictures = [path for path in out if path.suffix.lower() != ".html"]
    if pictures and (missing := undrawable(data)):
        notes.append(
            f"no font that matplotlib finds has {' '.join(missing)}, so boxes stand for them in "
            f"{pictures[0].name}; install a font that has them, or write .html."
        )
    return notes


def _check_given(
    n_stores: int,
    out: tuple[Path, ...],
    titles: tuple[str, ...],
) -> None:
    """Refuse, before anything is written, pictures and titles that make no sense."""
    from tspcli.analysis import check_picture
    from tspcli.errors import UsageError

    for path in out:
        if path.suffix.lower() != ".html":
            check_picture(path)
    if len(titles) > n_stores:
        raise UsageError(
            f"{len(titles)} titles were given for {counted(n_stores, 'store')}; "
            f"{titles[n_stores]!r} is one too many.",
            option="title",
        )


def _load(
    stores: list[Path],
    video: str,
    titles: tuple[str, ...],
    given: AnnotationSet,
    sampling: Sampling | None,
) -> tuple[str, list[FeatureView], tuple[Segment, ...]]:
    from tspcli.analysis import view_features
    from tspcli.core.video_names import pair_names
    from tspcli.store import open_store
    from tspcli.store.store_set import find_video, require_agreement_or_use

    segments: tuple[Segment, ...] = ()
    with ExitStack() as stack:
        opened = [stack.enter_context(open_store(path, sampling=sampling)) for path in stores]
        require_agreement_or_use(opened, sampling)
        found = [find_video(store, video) for store in opened]
        key = found[0].key
        known = pair_names(list(opened[0]), given.videos).get(key)
        if known is not None:
            segments = given.videos[known].segments
            for note in given.notes_on(known):
                warn(note)
        elif given.files:
            warn(f"the annotations do not mention {key!r}.")
        stems = [path.stem for path in stores]
        if len(set(stems)) < len(stems):
            # Each run's own features.
            stems = [f"{path.absolute().parent.name}/{path.stem}" for path in stores]
        called = [*titles, *stems[len(titles) :]]
        views = [
            view_features(features, title, segments)
            for features, title in zip(found, called, strict=True)
        ]
    return key, views, segments


def _frames(path: Path, views: list[FeatureView], count: int) -> list[Thumbnail]:
    from tspcli.errors import VideoError

    try:
        return _thumbnails(path, views, count)
    except VideoError as error:
        remedy = "Give another --video, or none: all but the frames can be drawn without it."
        error.remedy = error.remedy or remedy
        raise


def _thumbnails(path: Path, views: list[FeatureView], count: int) -> list[Thumbnail]:
    from fractions import Fraction

    from tspcli.analysis import Thumbnail
    from tspcli.analysis.plot_data import axis_s
    from tspcli.video import open_source

    duration = axis_s(views)
    frames = []
    with open_source(path) as source:
        origin = None
        for number in range(count):
            time = Fraction((number + 0.5) / count * duration).limit_denominator(1000)
            if origin is None:
                first = next(iter(source.frames()), None)
                if first is None:
                    return []
                origin = first.pts_s
            frame = next(iter(source.frames(start_s=origin + time)), None)
            if frame is not None:
                frames.append(Thumbnail(float(frame.pts_s - origin), frame.rgb().copy()))
    if frames and duration - frames[-1].time_s > duration / count + _LATE_S:
        warn(f"{path} is shorter than the features; is it the same video?")
    return frames


def _draw(console: Console, data: PlotData) -> None:
    """Two cells a character, one above the other."""
    from rich.style import Style
    from rich.text import Text

    from tspcli.analysis.plot_data import legend_entries, segment_colors
    from tspcli.analysis.terminal import change_line, color_row, matrix_grid, segment_line

    width = min(_MOST_COLUMNS, max(8, console.width - 2))
    colors = list(segment_colors(data).values())
    for view in data.views:
        title = f"{data.key}  {view.title}: {counted(view.n_rows, 'clip')}"
        if view.separation is not None:
            title += f", separation {view.separation:+.3f}"
        console.print(printable(title), style="bold", markup=False)
        if data.segments:
            line = Text()
            for number in segment_line(data, view, width):
                if number is None:
                    line.append(" ")
                else:
                    line.append("▄", colors[number])
            console.print(line, no_wrap=True)
        strip = Text()
        for color in color_row(view, width):
            strip.append("█", Style(color=_hex(color)))
        console.print(strip, no_wrap=True)
        console.print(change_line(view, width), no_wrap=True)
        grid = matrix_grid(view, width, data.scale_of(view))
        for upper, lower in zip(grid[::2], grid[1::2], strict=True):
            text = Text()
            for above, below in zip(upper, lower, strict=True):
                text.append("▀", Style(color=_hex(above), bgcolor=_hex(below)))
            console.print(text, no_wrap=True)
        console.print(f"{view.edges_s[0]:.1f} s{view.end_s:>{max(1, width - 8)}.1f} s")
    low, high = data.scale_of(data.views[-1])
    lines = [*(["actions"] if data.segments else []), "PCA colours", "change", "similarity"]
    console.print(
        f"From the top: {', '.join(lines)} (dark {low:.3g}, bright {high:.3g})", style="dim"
    )
    if data.segments:
        names = Text()
        for label, color in legend_entries(data):
            names.append("▄ ", color)
            names.append(printable(label) + "  ")
        console.print(names)


def _hex(color: Iterable[int]) -> str:
    red, green, blue = (int(value) for value in color)
    return f"#{red:02x}{green:02x}{blue:02x}"
