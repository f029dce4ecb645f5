"""Pictures of features: what they show, and that they can be opened."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.analysis.plotted import make_rows, make_store
from tspcli.analysis import PlotData, view_features, write_page, write_picture
from tspcli.cli.main import cli
from tspcli.errors import DependencyError, UsageError
from tspcli.store import open_store


class TestPictures:
    @pytest.fixture(autouse=True)
    def _matplotlib(self) -> None:
        pytest.importorskip("matplotlib")

    def test_png(self, data: PlotData, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        write_picture(data, tmp_path / "p.png", dpi=150)
        with image.open(tmp_path / "p.png") as opened:
            pixels = np.asarray(opened.convert("RGB"))
        height, width = pixels.shape[:2]
        assert width > 1000 and height > 700
        assert (pixels[-15:] == 255).all()
        # Nothing is cut off: the margins are white all around.
        for margin in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
            assert (margin == 255).all()
        # The colours of the segments and of the matrices are there.
        flat = {tuple(p) for p in pixels.reshape(-1, 3)}
        assert (0xD5, 0x5E, 0x00) in flat and (0x00, 0x72, 0xB2) in flat
        dark = (pixels.astype(int).sum(axis=2) < 150).mean()
        assert 0.01 < dark < 0.6

    def test_svg_has_its_words_and_is_the_same_twice(self, data: PlotData, tmp_path: Path) -> None:
        for name in ("a.svg", "b.svg"):
            write_picture(data, tmp_path / name)
        text = (tmp_path / "a.svg").read_text()
        assert text == (tmp_path / "b.svg").read_text()
        assert "cosine similarity of clips" in text and "</script>" not in text
        assert not re.search(r'(href|src)="https?:', text)

    @pytest.mark.parametrize("name", ["v_one", "v_dense"])
    def test_small_and_bare(self, store: Path, tmp_path: Path, name: str) -> None:
        with open_store(store) as opened:
            bare = PlotData(name, [view_features(opened[name], "x")])
        write_picture(bare, tmp_path / "p.png")
        write_picture(bare, tmp_path / "p.pdf")
        assert (tmp_path / "p.pdf").read_bytes()[:5] == b"%PDF-"

    def test_unknown_ending(self, data: PlotData, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"\.png"):
            write_picture(data, tmp_path / "p.jpeg")


def test_without_matplotlib(
    data: PlotData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"tspcli\[plots\]"):
        write_picture(data, tmp_path / "p.png")
    write_page(data, tmp_path / "p.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "tsp.h5"]


def test_command_writes_all_kinds(store: Path, tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("matplotlib")
    other = make_store(tmp_path / "tac.h5", {"a": make_rows(60, 0.5)})
    table = tmp_path / "gt.csv"
    table.write_text(
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label\n"
        "a,16,32,Long jump,64,v_a.mp4,30,1920,Action\n"
        "a,0,16,,64,v_a.mp4,30,1920,No action\n"
    )
    outs = [tmp_path / f"p.{ending}" for ending in ("png", "svg", "html")]
    arguments = ["plot", str(store), "a", "--against", str(other), "--title", "TSP"]
    arguments += ["-a", str(table), "--video", str(shared_data / "v_GGSY1Qvo990.mp4")]
    for out in outs:
        arguments += ["-o", str(out)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert all(out.stat().st_size > 10_000 for out in outs)
    assert re.search(r"TSP: separation \+0\.\d+", result.output)
    assert "tac: separation" in result.output
    text = outs[2].read_text()
    assert text.count("data:image/png") == 8 and "shorter than the features" in result.output
