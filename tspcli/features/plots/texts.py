"""Names as they come, in a picture: none is a formula, too long, or without a font if one is there.

Of matplotlib alone; pages leave this to the browser.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tspcli.features.plots.colors import legend_entries
from tspcli.features.plots.data import PlotData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONT = "DejaVu Sans"
_LAST_RESORT = "lastresort"
"""Has a box for every character, and a glyph for none."""


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


@contextmanager
def text_style(data: PlotData) -> Iterator[dict[Any, Any]]:
    """Settings of matplotlib for these names; without its warning of each missing character.

    :func:`undrawable` tells them all at once.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield {"font.family": [_FONT, *_fonts(_characters(data))[0]], "text.parse_math": False}


class Ruler:
    """Measures texts of a figure before they are placed."""

    def __init__(self, figure: Figure) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self._figure = figure
        self._renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]

    def width_in(self, text: str, **style: Any) -> float:
        """The width of a text in inches."""
        from matplotlib.text import Text

        drawn = Text(0, 0, text, **style)
        drawn.set_figure(self._figure)
        return float(drawn.get_window_extent(self._renderer).width / self._figure.dpi)

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


def _characters(data: PlotData) -> str:
    texts = [data.key, *(view.title for view in data.views)]
    texts += [label for label, _ in legend_entries(data)]
    return "".join(sorted({c for text in texts for c in shown(text)}))


@lru_cache(maxsize=8)
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
