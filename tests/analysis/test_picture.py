"""Names, legends and segments in pictures, as matplotlib draws them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.analysis.plotted import SEGMENTS
from tests.builders.stores import features
from tests.builders.stores import store as made_store
from tspcli.analysis import PlotData, write_picture
from tspcli.analysis import page as page_room
from tspcli.analysis.picture import drawn, undrawable
from tspcli.analysis.plot_data import OTHER_COLOR, SEGMENT_COLORS, segment_colors
from tspcli.annotations import Segment
from tspcli.cli.main import cli

pytest.importorskip("matplotlib")

ODD = ("a$^$b", "v_$x$_{", "_hidden", r"\frac{1}{0}", "two\nlines \ud800")


def labelled(data: PlotData, labels: list[str]) -> PlotData:
    step = 64 / len(labels)
    segments = [Segment(i * step, (i + 0.6) * step, label) for i, label in enumerate(labels)]
    return replace(data, segments=segments)


def strip(figure: Any, label: str) -> Any:
    (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == label)
    return axes


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_odd_names_are_written_as_they_are(data: PlotData, tmp_path: Path, ending: str) -> None:
    odd = labelled(replace(data, key=" ".join(ODD)), list(ODD))
    odd.views[0] = replace(odd.views[0], title="$a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_picture(odd, tmp_path / f"p.{ending}", dpi=50)
    from matplotlib.text import Text

    with drawn(odd) as figure:
        found = [t for t in figure.findobj(Text) if t.get_text()]
        assert not any(text.get_parse_math() for text in found)
        said = {text.get_text() for text in found}
    assert {*ODD[:4], "two\ufffdlines \ufffd"} <= said


def test_spaces_of_other_scripts_are_spaces(data: PlotData) -> None:
    with drawn(replace(data, key="\u6771\u4eac\u3000\u30bf\xa0x\ny")) as figure:
        assert "\u6771\u4eac \u30bf x\ufffdy" in {text.get_text() for text in figure.texts}


@pytest.mark.parametrize(("count", "n_views"), [(2, 2), (9, 1), (40, 2)])
def test_the_legend_names_all_and_covers_nothing(data: PlotData, count: int, n_views: int) -> None:
    names = [f"Label that has {i} words" for i in range(count)]
    many = labelled(replace(data, views=data.views[:n_views]), names)
    with drawn(many) as figure:
        figure.draw_without_rendering()
        (legend,) = figure.legends
        said = [text.get_text() for text in legend.get_texts()]
        assert said[: len(SEGMENT_COLORS)] == names[: len(SEGMENT_COLORS)]
        box = legend.get_window_extent()
        top = max(axes.get_window_extent().y1 for axes in figure.axes)
        width, height = figure.get_size_inches() * figure.dpi
        assert box.y0 >= top and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(text.get_window_extent()) for text in figure.texts)
    colors = list(segment_colors(many).values())
    own = [color for color in colors if color != OTHER_COLOR]
    assert len(set(own)) == len(own) == min(count, len(SEGMENT_COLORS))
    if count > len(own):
        assert said[-1] == f"{count - len(own)} others"


def test_long_names_are_cut(data: PlotData) -> None:
    long = labelled(replace(data, key="k" * 400), ["one", "w" * 300])
    long.views[0] = replace(long.views[0], title="t" * 300)
    with drawn(long) as figure:
        figure.draw_without_rendering()
        width = figure.get_size_inches()[0] * figure.dpi
        shown = [*figure.texts, *figure.legends[0].get_texts()]
        assert all(text.get_window_extent().x1 <= width for text in shown)
        assert sum("…" in text.get_text() for text in shown) == 3
        assert any(": 60 clips" in text.get_text() for text in shown)


def test_every_segment_is_drawn(data: PlotData) -> None:
    """In the strip, over the change and around its block of the matrix, of each store."""
    from matplotlib.colors import to_hex

    with drawn(data) as figure:
        colors = segment_colors(data)
        expected = [(s.start_s, s.end_s, colors[s.label]) for s in SEGMENTS]

        def spans(axes: Any) -> list[tuple[float, float, str]]:
            return [
                (p.get_x(), p.get_x() + p.get_width(), to_hex(p.get_facecolor()))
                for p in axes.patches
            ]

        assert spans(strip(figure, "action")) == expected
        assert spans(strip(figure, "change")) == expected
        matrices = [axes for axes in figure.axes if axes.get_xlabel() == "seconds"]
        assert len(matrices) == 2
        for axes in matrices:
            outlines = [line for line in axes.lines if line.get_color() in colors.values()]
            corners = [
                (min(line.get_xdata()), max(line.get_xdata()), line.get_color())
                for line in outlines
            ]
            assert corners == expected
            assert all(sorted(line.get_xdata()) == sorted(line.get_ydata()) for line in outlines)


@pytest.mark.parametrize("largest", [1e-4, 0.0031, 0.049, 0.77, 2.0])
def test_the_change_has_more_than_one_tick(data: PlotData, largest: float) -> None:
    change = data.views[0].change * (largest / data.views[0].change.max())
    with drawn(replace(data, views=[replace(data.views[0], change=change)])) as figure:
        ticks = strip(figure, "change").get_yticks()
    assert 2 <= len(ticks) <= 4 and min(ticks) > 0 and max(ticks) <= largest * 1.08


class TestFonts:
    def font(self, path: Path, character: str) -> Path:
        """A font with one square for that character."""
        builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
        from fontTools.pens.ttGlyphPen import TTGlyphPen

        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 700), (700, 700), (700, 0)):
            pen.lineTo(corner)
        pen.closePath()
        builder.setupGlyphOrder([".notdef", "square"])
        builder.setupCharacterMap({ord(character): "square"})
        builder.setupGlyf({".notdef": pen.glyph(), "square": pen.glyph()})
        builder.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": "Square of a test", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(path)
        return path

    def test_one_that_has_the_characters_is_chosen(
        self, data: PlotData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import matplotlib
        from matplotlib import font_manager

        manager = font_manager.fontManager
        usual = [entry for entry in manager.ttflist if entry.name == "DejaVu Sans"]
        monkeypatch.setattr(manager, "ttflist", usual)
        named = labelled(data, ["Run", "视频"])
        assert undrawable(named) == "视频"
        manager.addfont(self.font(tmp_path / "square.ttf", "视"))
        assert undrawable(named) == "频"
        with drawn(named):
            assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "Square of a test"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_picture(named, tmp_path / "p.png", dpi=50)

    def test_what_none_has_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib import font_manager

        manager = font_manager.fontManager
        usual = [entry for entry in manager.ttflist if entry.name == "DejaVu Sans"]
        monkeypatch.setattr(manager, "ttflist", usual)
        path = made_store(tmp_path / "s.h5", {"v_视频": features(20, 0)})
        outs = [part for name in ("a.png", "b.svg") for part in ("-o", str(tmp_path / name))]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = CliRunner().invoke(cli, ["plot", str(path), "v_视频", *outs])
        assert result.exit_code == 0, result.output
        assert result.output.count("no font that matplotlib finds has") == 1
        assert "视 频" in result.output and "a.png" in result.output
        page = ["plot", str(path), "v_视频", "-o", str(tmp_path / "p.html")]
        result = CliRunner().invoke(cli, page)
        assert "no font" not in result.output
        assert "<title>v_视频</title>" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_labels_without_a_colour_are_told(tmp_path: Path) -> None:
    path = made_store(tmp_path / "s.h5", {"v_a": features(60, 0)})
    table = tmp_path / "gt.csv"
    lines = [f"a,{i},{i + 1},label {i}\n" for i in range(len(SEGMENT_COLORS) + 2)]
    table.write_text("video,start,end,label\n" + "".join(lines))
    command = ["plot", str(path), "a", "-a", str(table), "-o", str(tmp_path / "p.html")]
    result = CliRunner().invoke(cli, command)
    assert f"2 labels of {len(lines)} have no colour left" in result.output


@pytest.mark.parametrize("key", ["{{DATA}}", "{{TITLE}} {{DATA}}", "v_\ud800"])
def test_no_name_is_a_place_of_the_page(data: PlotData, key: str) -> None:
    page = page_room.page(replace(data, key=key))
    shown = key.replace("\ud800", "?")
    assert f"<title>{shown}</title>" in page and page.count('"similarity"') == 2
