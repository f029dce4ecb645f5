"""The picture as PNG, SVG or PDF, through matplotlib.

Names are shown as they come: none is read as a formula, a long one is cut, and one in another
script is drawn with whatever font on this machine has its characters.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tspcli.analysis.plot_data import (
    FeatureView,
    PlotData,
    cut_to,
    legend_entries,
    segment_colors,
)
from tspcli.core.files import replacing
from tspcli.errors import DependencyError, UsageError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

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
_LABEL_IN, _MOST_COLUMNS = 2.4, 8
_LEGEND: dict[str, Any] = {
    "loc": "upper left",
    "fontsize": 7,
    "frameon": False,
    "borderpad": 0,
    "borderaxespad": 0,
    "labelspacing": 0.4,
    "columnspacing": 1.6,
    "handlelength": 1.0,
    "handleheight": 1.0,
    "handletextpad": 0.5,
}
_FONT = "DejaVu Sans"
_LAST_RESORT = "lastresort"
"""Has a box for every character, and a glyph for none."""


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
    """Draw the picture and write it, in full or not at all.

    Args:
        data: What to show.
        path: The file; its ending chooses PNG, SVG or PDF.
        dpi: Dots per inch of a PNG.

    Raises:
        UsageError: If the ending is none of these.
        DependencyError: If matplotlib is not installed.
    """
    path = Path(path)
    kind = check_picture(path)
    with drawn(data) as figure:
        # Without a date the same features give the same file.
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        if kind == "pdf":
            metadata = {"CreationDate": None}
        with replacing(path) as aside:
            figure.savefig(aside, format=kind, dpi=dpi, metadata=metadata)


@contextmanager
def drawn(data: PlotData) -> Iterator[Figure]:
    """The picture as a figure, and matplotlib's settings for as long as it is used.

    Without matplotlib's warning of each missing character; :func:`undrawable` reports them all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    families, _ = _fonts(_characters(data))
    names: dict[Any, Any] = {"font.family": [_FONT, *families], "text.parse_math": False}
    with warnings.catch_warnings(), matplotlib.rc_context({**_STYLE, **names}):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure()
        _draw(figure, data)
        yield figure


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
    legend, legend_in = _add_legend(figure, data, ruler, width - _LEFT_IN - _RIGHT_IN)
    strips_in = sum(_HEIGHTS_IN[name] + _SPACE_IN for name in strips)
    height = _HEAD_IN + legend_in + strips_in + _COLUMN_IN + _FOOT_IN
    figure.set_size_inches(width, height)
    figure.text(
        _LEFT_IN / width,
        1 - 0.17 / height,
        ruler.fitted(data.key, width - _LEFT_IN - _RIGHT_IN, **_KEY_STYLE),
        va="center",
        **_KEY_STYLE,
    )
    if legend is not None:
        corner = _LEFT_IN / width, 1 - _HEAD_IN / height
        legend.set_bbox_to_anchor(corner, figure.transFigure)  # type: ignore[arg-type]
    for column, view in enumerate(data.views):
        left = _LEFT_IN + column * (_COLUMN_IN + gap_in)

        def place(bottom: float, tall: float, wide: float = _COLUMN_IN, left: float = left) -> Axes:
            return figure.add_axes((left / width, bottom / height, wide / width, tall / height))

        top = height - _HEAD_IN - legend_in
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


def _add_legend(
    figure: Figure, data: PlotData, ruler: Ruler, width_in: float
) -> tuple[Legend | None, float]:
    """A legend of as many columns as fit, and its height in inches; none for a single label."""
    from matplotlib.patches import Patch

    if len(data.labels) < 2:
        return None, 0.0
    handles = [
        Patch(color=color, lw=0, label=ruler.fitted(label, min(_LABEL_IN, width_in), fontsize=7))
        for label, color in legend_entries(data)
    ]
    for columns in range(min(len(handles), _MOST_COLUMNS), 0, -1):
        legend = figure.legend(handles=handles, ncols=columns, **_LEGEND)
        wide, tall = ruler.size_in(legend)
        if wide <= width_in or columns == 1:
            break
        legend.remove()
    return legend, tall + 0.05


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


class Ruler:
    """Measures texts of a figure before they are placed."""

    def __init__(self, figure: Figure) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self._figure = figure
        self._renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]

    def width_in(self, text: str, **style: Any) -> float:
        """The width of a text in inches."""
        from matplotlib.text import Text

        artist = Text(0, 0, text, **style)
        artist.set_figure(self._figure)
        return self.size_in(artist)[0]

    def size_in(self, artist: Artist) -> tuple[float, float]:
        """Width and height of something drawn, in inches."""
        extent = artist.get_window_extent(self._renderer)
        return float(extent.width / self._figure.dpi), float(extent.height / self._figure.dpi)

    def fitted(self, text: str, most_in: float, **style: Any) -> str:
        """The text, cut at its end if it is wider than so many inches."""
        text = shown(text)
        if self.width_in(text, **style) <= most_in:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width_in(text[:middle] + "…", **style) <= most_in:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…"


def shown(text: str) -> str:
    """A text in which nothing breaks the line or cannot be written."""
    return "".join(_shown(c) for c in text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    # Spaces that are no plain ones, such as the ideographic one, count as not printable.
    return " " if unicodedata.category(character) == "Zs" else "\ufffd"


def undrawable(data: PlotData) -> str:
    """The characters of a picture's names that no font has which matplotlib finds."""
    return _fonts(_characters(data))[1]


def _characters(data: PlotData) -> str:
    texts = [data.key, *(view.title for view in data.views)]
    texts += [label for label, _ in legend_entries(data)]
    return "".join(sorted({c for text in texts for c in shown(text)}))


def _fonts(characters: str) -> tuple[tuple[str, ...], str]:
    """(Families to draw with after the usual one, the characters that none has)."""
    from matplotlib import font_manager

    usual = font_manager.get_font(font_manager.findfont(_FONT))
    missing = {c for c in characters if not usual.get_char_index(ord(c))}
    families: list[str] = []
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda e: (e.name, e.fname)):
        if not missing:
            break
        if entry.name in families or _LAST_RESORT in entry.name.lower().replace(" ", ""):
            continue
        try:
            font = font_manager.get_font(entry.fname)
        except (OSError, RuntimeError):
            continue
        # Fonts of coloured pictures cannot be scaled, which is all that is done with them here.
        known = {c for c in missing if font.scalable and font.get_char_index(ord(c))}
        if known:
            families.append(entry.name)
            missing -= known
    return tuple(families), "".join(sorted(missing))
