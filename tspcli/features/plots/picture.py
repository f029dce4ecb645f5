"""The picture as PNG, SVG or PDF, through matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tspcli.errors import DependencyError, UsageError
from tspcli.features.atomic import write_aside
from tspcli.features.plots.colors import segment_colors
from tspcli.features.plots.data import FeatureView, PlotData
from tspcli.features.plots.legend import lay_out
from tspcli.features.plots.texts import Ruler, text_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "tspcli",
}
_COLUMN_IN = 3.6
_LEFT_IN, _RIGHT_IN, _GAP_IN = 0.68, 0.16, 0.62
_BAR_IN, _BAR_GAP_IN = 0.1, 0.4
_HEAD_IN, _FOOT_IN = 0.52, 0.54
_HEIGHTS_IN = {"thumbnails": 0.46, "segments": 0.16, "colors": 0.26, "change": 0.6}
_SPACE_IN = 0.07
_NAME_IN = 2.0
_KEY_STYLE: dict[str, Any] = {"fontsize": 10, "fontweight": "bold"}


def check_picture(path: Path) -> str:
    """The format of a picture of that name.

    Raises:
        UsageError: If there is no such format.
        DependencyError: If matplotlib is not installed.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UsageError(
            f"{path.name!r} does not end in .png, .svg, .pdf or .html.",
            remedy="Choose one of these endings for --out.",
        )
    try:
        import matplotlib  # noqa: F401 (that it can be imported is all that is asked)
    except ImportError as error:
        raise DependencyError(
            "Pictures need matplotlib, which is not installed.",
            remedy="Install it with `pip install 'tspcli[plots]'`; HTML pages do without.",
        ) from error
    return kind


def write_picture(data: PlotData, path: str | Path, *, dpi: int = 200) -> None:
    """Draw the picture and write it, whole or not at all.

    Args:
        data: What to show.
        path: The file; its ending chooses PNG, SVG or PDF.
        dpi: Dots an inch of a PNG.

    Raises:
        UsageError: If the ending is none of these.
        DependencyError: If matplotlib is not installed.
    """
    path = Path(path)
    kind = check_picture(path)
    import matplotlib
    from matplotlib.figure import Figure

    with text_style(data) as names, matplotlib.rc_context({**_STYLE, **names}):
        figure = Figure()
        _draw(figure, data)
        # Without a date the same features give the same file.
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        if kind == "pdf":
            metadata = {"CreationDate": None}
        with write_aside(path) as aside:
            figure.savefig(aside, format=kind, dpi=dpi, metadata=metadata)


def _draw(figure: Figure, data: PlotData) -> None:
    strips = [
        name
        for name, there in (
            ("thumbnails", bool(data.thumbnails)),
            ("segments", bool(data.segments)),
            ("colors", True),
            ("change", True),
        )
        if there
    ]
    n = len(data.views)
    gap_in = _GAP_IN + (_BAR_GAP_IN if data.own_scales else 0)
    width = _LEFT_IN + n * (_COLUMN_IN + gap_in) + _RIGHT_IN
    ruler = Ruler(figure)
    legend = lay_out(data, ruler, width - _LEFT_IN - _RIGHT_IN)
    strips_in = sum(_HEIGHTS_IN[name] + _SPACE_IN for name in strips)
    height = _HEAD_IN + legend.height_in + strips_in + _COLUMN_IN + _FOOT_IN
    figure.set_size_inches(width, height)
    figure.text(
        _LEFT_IN / width,
        1 - 0.17 / height,
        ruler.fitted(data.key, width - _LEFT_IN - _RIGHT_IN, **_KEY_STYLE),
        va="center",
        **_KEY_STYLE,
    )
    legend.draw(figure, _LEFT_IN, height - _HEAD_IN)
    for column, view in enumerate(data.views):
        left = _LEFT_IN + column * (_COLUMN_IN + gap_in)

        def place(bottom: float, tall: float, wide: float = _COLUMN_IN, left: float = left) -> Axes:
            return figure.add_axes((left / width, bottom / height, wide / width, tall / height))

        top = height - _HEAD_IN - legend.height_in
        title = ruler.fitted(_title(view, ruler), _COLUMN_IN + gap_in - 0.1)
        figure.text(left / width, (height - 0.38) / height, title, va="center")
        for name in strips:
            bottom = top - _HEIGHTS_IN[name]
            axes = place(bottom, _HEIGHTS_IN[name])
            _STRIPS[name](axes, data, view)
            if column:
                axes.set_ylabel("")
            top = bottom - _SPACE_IN
        axes = place(top - _COLUMN_IN, _COLUMN_IN)
        image = _draw_matrix(axes, data, view)
        if column:
            axes.set_ylabel("")
        if column == n - 1 or data.own_scales:
            bar = place(top - _COLUMN_IN, _COLUMN_IN, _BAR_IN, left + _COLUMN_IN + 0.08)
            figure.colorbar(image, cax=bar).set_label("cosine similarity of clips")
            bar.ticklabel_format(useOffset=False)
            bar.tick_params(labelsize=7, length=3)


def _title(view: FeatureView, ruler: Ruler) -> str:
    """Its name, cut if it is long, so that the numbers stay."""
    text = f"{ruler.fitted(view.title, _NAME_IN)}: {view.n_rows} clip{'s' * (view.n_rows != 1)}"
    if view.separation is not None:
        text += f", separation {view.separation:+.3f}"
    return text


def _strip(axes: Axes, data: PlotData, label: str) -> None:
    axes.set_xlim(0, data.duration_s)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)


def _draw_thumbnails(axes: Axes, data: PlotData, view: FeatureView) -> None:
    """Frames side by side, each over the seconds around its time and cut to fit there."""
    from tspcli.features.plots.thumbnails import cut_to

    _strip(axes, data, "video")
    count = len(data.thumbnails)
    wide = data.duration_s / count
    aspect = (_COLUMN_IN / count) / _HEIGHTS_IN["thumbnails"]
    for number, thumbnail in enumerate(data.thumbnails):
        left = number * wide
        axes.imshow(
            cut_to(thumbnail.rgb, aspect),
            extent=(left + 0.01 * wide, left + 0.99 * wide, 0, 1),
            aspect="auto",
            interpolation="lanczos",
        )
    axes.set_xlim(0, data.duration_s)
    axes.set_ylim(0, 1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_segments(axes: Axes, data: PlotData, view: FeatureView) -> None:
    one = data.labels[0] if len(data.labels) == 1 else ""
    _strip(axes, data, "action")
    colors = segment_colors(data)
    for segment in data.segments:
        axes.axvspan(segment.start_s, segment.end_s, color=colors[segment.label], lw=0)
    if one:
        longest = max(data.segments, key=lambda s: s.end_s - s.start_s)
        share = (longest.end_s - longest.start_s) / data.duration_s
        ruler = Ruler(axes.figure)  # type: ignore[arg-type]
        one = ruler.fitted(one, 0.9 * _COLUMN_IN, fontsize=7)
        fits = share * _COLUMN_IN > ruler.width_in(one, fontsize=7) + 0.06
        axes.text(
            (longest.start_s + longest.end_s) / 2 if fits else data.duration_s / 2,
            0.46,
            one,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if fits else "black",
            bbox=None if fits else {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.6},
        )
    axes.set_ylim(0, 1)


def _draw_colors(axes: Axes, data: PlotData, view: FeatureView) -> None:
    _strip(axes, data, "PCA")
    axes.imshow(
        view.colors[None],
        extent=(view.edges_s[0], view.end_s, 0, 1),
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_xlim(0, data.duration_s)


def _draw_change(axes: Axes, data: PlotData, view: FeatureView) -> None:
    colors = segment_colors(data)
    for segment in data.segments:
        axes.axvspan(segment.start_s, segment.end_s, color=colors[segment.label], alpha=0.16, lw=0)
    axes.plot(view.change_s, view.change, color="black", lw=0.8)
    axes.set_xlim(0, data.duration_s)
    axes.set_ylim(0, data.largest_change(view) * 1.08 or 1)
    axes.set_xticks([])
    axes.tick_params(labelsize=6, length=2)
    axes.set_yticks(_change_ticks(axes.get_ylim()[1]))
    axes.set_ylabel("change", rotation=90, va="center", fontsize=7)
    axes.yaxis.set_label_coords(-0.14, 0.5)


def _change_ticks(top: float) -> list[float]:
    """Two to four ticks; the 0 would touch the matrix's first one."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    return [float(tick) for tick in ticks if 0 < tick <= top]


def _draw_matrix(axes: Axes, data: PlotData, view: FeatureView) -> Any:
    low, high = data.scale_of(view)
    image = axes.imshow(
        view.similarity,
        extent=(view.edges_s[0], view.end_s, view.end_s, view.edges_s[0]),
        cmap="magma",
        vmin=low,
        vmax=high,
        interpolation="nearest",
        aspect="auto",
    )
    colors = segment_colors(data)
    for segment in data.segments:
        # The block in which the segment's clips are compared with each other.
        x = [segment.start_s, segment.end_s, segment.end_s, segment.start_s, segment.start_s]
        y = [segment.start_s, segment.start_s, segment.end_s, segment.end_s, segment.start_s]
        axes.plot(x, y, color="white", lw=1.6, alpha=0.7)
        axes.plot(x, y, color=colors[segment.label], lw=0.9)
    axes.set_xlim(0, data.duration_s)
    axes.set_ylim(data.duration_s, 0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("seconds")
    axes.yaxis.set_label_coords(-0.11, 0.5)
    axes.tick_params(labelsize=7, length=3)
    return image


_STRIPS = {
    "thumbnails": _draw_thumbnails,
    "segments": _draw_segments,
    "colors": _draw_colors,
    "change": _draw_change,
}
