"""Pictures of features: what they show, and that they can be opened."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tspcli.annotations import Segment
from tspcli.cli.main import cli
from tspcli.errors import DependencyError, StoreError, UsageError
from tspcli.features import StoreMetadata, open_store, write_store
from tspcli.features.metadata import sampling_attributes
from tspcli.features.plots import (
    PlotData,
    Thumbnail,
    foreground_rows,
    separation,
    view_features,
    write_page,
    write_picture,
)
from tspcli.features.plots.data import MOST_CELLS, principal_colors
from tspcli.features.plots.page import page
from tspcli.features.plots.terminal import change_line, matrix_grid, segment_line
from tspcli.features.plots.thumbnails import cut_to, png_data_uri, shrink
from tspcli.timeline import Sampling

TSP = Sampling()
SEGMENTS = (Segment(16.0, 32.0, "Long jump"), Segment(48.0, 56.0, "<b>Wrap</b>"))


def make_rows(n: int, strength: float, seed: int = 0, sampling: Sampling = TSP) -> np.ndarray:
    """Rows in which foreground and background differ by ``strength``."""
    rng = np.random.default_rng(seed)
    times = np.array([float(sampling.clip_center_s(i)) for i in range(n)])
    rows = rng.normal(size=(n, 48)) + 0.5
    rows += (
        strength * np.where(foreground_rows(times, SEGMENTS), 1, -1)[:, None] * rng.normal(size=48)
    )
    return rows.astype(np.float32)


def make_store(path: Path, videos: dict[str, np.ndarray], sampling: Sampling = TSP) -> Path:
    entries = (
        (k, r, {"warnings": "[]", **sampling_attributes(sampling)}) for k, r in videos.items()
    )
    encoder = {"backbone": "r3d_18", "weights": "w"}
    write_store(path, entries, StoreMetadata.build(sampling=sampling, encoder=encoder))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    videos = {"v_a": make_rows(60, 2.0), "v_one": make_rows(1, 0.0), "v_dense": make_rows(60, 1)}
    return make_store(tmp_path / "tsp.h5", videos)


@pytest.fixture
def data(store: Path) -> PlotData:
    rng = np.random.default_rng(0)
    frames = [Thumbnail(t, rng.integers(0, 255, (90, 160, 3), np.uint8)) for t in (8.0, 24, 40)]
    with open_store(store) as opened:
        views = [view_features(opened["v_a"], title, SEGMENTS) for title in ("TAC", "TSP & co")]
    return PlotData("v_a </script>", views, SEGMENTS, frames)


class TestSeparation:
    TIMES = np.array([float(TSP.clip_center_s(i)) for i in range(60)])

    def of(self, rows: np.ndarray, apart: int = 1) -> float | None:
        return separation(rows, foreground_rows(self.TIMES[: len(rows)], SEGMENTS), apart=apart)

    def test_foreground_is_where_centres_are(self) -> None:
        foreground = foreground_rows(np.array([15.9, 16.0, 32.0, 32.1, 50.0]), SEGMENTS)
        assert foreground.tolist() == [False, True, True, False, True]

    def test_grows_with_the_difference_and_is_bounded(self) -> None:
        values = [self.of(make_rows(60, s)) for s in (0.0, 0.5, 2.0, 50.0)]
        assert abs(values[0]) < 0.05
        assert values == sorted(values)
        assert 0.95 < values[-1] <= 1

    def test_by_hand(self) -> None:
        """Two rows of each kind; cosines between the kinds 0, within 1: the silhouette is 1."""
        rows = np.array([[1, 0], [2, 0], [0, 1], [0, 3]], dtype=np.float32)
        assert separation(rows, np.array([True, True, False, False])) == pytest.approx(1.0)
        # Kinds crossed: own kind at distance 1, the other at (0 + 1) / 2.
        assert separation(rows, np.array([True, False, True, False])) == pytest.approx(-0.5)

    def test_does_not_depend_on_scale_or_length_of_the_kinds(self) -> None:
        rows = make_rows(60, 1.0)
        assert self.of(rows * 7) == pytest.approx(self.of(rows), abs=1e-5)
        foreground = foreground_rows(self.TIMES, SEGMENTS)
        more = np.concatenate([rows, rows[~foreground]])
        label = np.concatenate([foreground, np.zeros((~foreground).sum(), bool)])
        # Repeated rows lie at distance 0 of themselves, which helps their own kind a little.
        assert separation(more, label) == pytest.approx(self.of(rows), abs=0.05)

    def test_overlapping_clips_do_not_count(self) -> None:
        """Noise that is alike only where clips share frames is no separation."""
        rng = np.random.default_rng(1)
        noise = rng.normal(size=(140, 400))
        rows = np.stack([noise[i : i + 16].sum(axis=0) for i in range(120)]).astype(np.float32)
        foreground = np.arange(120) // 20 % 2 == 0
        assert separation(rows, foreground) > 0.1
        assert abs(separation(rows, foreground, apart=16)) < 0.05

    def test_needs_both_kinds(self) -> None:
        rows = make_rows(10, 1.0)
        assert separation(rows, np.ones(10, bool)) is None
        assert separation(rows[:1], np.ones(1, bool)) is None

    def test_long_videos_are_thinned(self) -> None:
        rows = np.random.default_rng(0).normal(size=(9000, 8)).astype(np.float32)
        foreground = np.arange(9000) < 4500
        rows[foreground] += 10
        assert separation(rows, foreground) == pytest.approx(
            separation(rows[::3], foreground[::3]), abs=1e-9
        )
        assert separation(rows, foreground) > 0.4


class TestView:
    def test_similarity_and_change(self, store: Path) -> None:
        with open_store(store) as opened:
            view = view_features(opened["v_a"], "x", SEGMENTS)
            rows = opened["v_a"].rows
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(
            view.similarity, rows @ rows.T / np.outer(norms, norms), atol=1e-5
        )
        np.testing.assert_allclose(view.change, 1 - np.diagonal(view.similarity, 1), atol=1e-5)
        assert view.change_s[0] == pytest.approx(16 / 15)
        assert view.edges_s[0] == pytest.approx(0) and view.end_s == pytest.approx(64)
        # The largest changes are at the segments' ends.
        peaks = np.sort(view.change_s[np.argsort(-view.change)[:4]])
        np.testing.assert_allclose(peaks, [16, 32, 48, 56], atol=1.1)

    def test_overlapping_clips_are_compared_a_clip_apart(self, tmp_path: Path) -> None:
        dense = Sampling(stride=4)
        path = make_store(tmp_path / "d.h5", {"v": make_rows(200, 1, sampling=dense)}, dense)
        with open_store(path) as opened:
            view = view_features(opened["v"], "x")
        assert len(view.change) == 200 - 4
        np.testing.assert_allclose(view.change, 1 - np.diagonal(view.similarity, 4), atol=1e-5)

    def test_long_videos_are_averaged(self, tmp_path: Path) -> None:
        dense = Sampling(stride=1)
        rows = make_rows(3000, 3.0, sampling=dense)
        path = make_store(tmp_path / "d.h5", {"v": rows}, dense)
        with open_store(path) as opened:
            view = view_features(opened["v"], "x", SEGMENTS)
        assert view.similarity.shape == (MOST_CELLS, MOST_CELLS)
        assert view.end_s == pytest.approx(3000 / 15 + 7.5 / 15)
        assert view.n_rows == 3000 and view.separation > 0.3

    def test_one_row(self, store: Path) -> None:
        with open_store(store) as opened:
            view = view_features(opened["v_one"], "x", SEGMENTS)
        assert view.similarity.tolist() == [[1.0]] and not len(view.change)
        assert view.colors.tolist() == [[128, 128, 128]] and view.separation is None

    def test_colors_follow_the_components(self) -> None:
        rows = np.zeros((50, 6), np.float32)
        rows[:, 2] = np.linspace(-5, 5, 50)  # the first component
        rows[:, 4] = np.tile([1, -1], 25)
        colors, explained = principal_colors(rows)
        assert (np.diff(colors[:, 0].astype(int)) >= 0).all()  # its sign is fixed
        assert colors[0, 0] == 0 and colors[-1, 0] == 255
        second = colors[:, 1].astype(int)  # a little of the first stays in it
        assert (second[::2] - second[1::2] > 200).all() and set(colors[:, 2]) == {128}
        assert explained[0] > explained[1] > 0 and len(explained) == 2

    def test_what_cannot_be_drawn(self, tmp_path: Path) -> None:
        rows = make_rows(5, 1.0)
        rows[2, 2] = np.inf
        path = make_store(tmp_path / "s.h5", {"v": rows})
        with open_store(path) as opened, pytest.raises(StoreError, match="not finite"):
            view_features(opened["v"], "x")

    def test_both_stores_share_a_scale(self, data: PlotData) -> None:
        low, high = data.scale_of(data.views[0])
        assert data.scale_of(data.views[1]) == (low, high)
        assert high == 1 and low == pytest.approx(
            np.percentile(data.views[0].similarity[~np.eye(60, dtype=bool)], 2), abs=1e-3
        )

    def test_scales_of_their_own(self, data: PlotData, tmp_path: Path) -> None:
        first, second = data.views
        near = replace(second, title="near", similarity=1 - (1 - second.similarity) / 1000)
        both = replace(data, views=[first, near])
        assert both.flattened == ["near"] and data.flattened == []
        own = replace(both, own_scales=True)
        assert own.flattened == [] and own.scale_of(first) == data.scale_of(first)
        assert 0.99 < own.scale_of(near)[0] < 1
        assert f'"range": [{own.scale_of(near)[0]}, 1.0]' in page(own)
        pytest.importorskip("matplotlib")
        write_picture(own, tmp_path / "p.png", dpi=50)


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


class TestPage:
    @pytest.fixture
    def chromium(self) -> str:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
        return program

    def load(self, chromium: str, path: Path, profile: Path) -> tuple[str, list[str]]:
        """(The page's DOM after its scripts ran, messages on its console)."""
        result = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                "--enable-logging=stderr",
                "--dump-dom",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]

    def test_opens_without_network_and_without_complaints(
        self, chromium: str, data: PlotData, tmp_path: Path
    ) -> None:
        path = tmp_path / "page.html"
        write_page(data, path)
        dom, console = self.load(chromium, path, tmp_path / "profile")
        assert console == []
        assert 'data-ready="yes"' in dom
        # Drawn: two views with their matrices, three frames each, and blocks for the segments.
        assert dom.count("Self-similarity matrix") >= 2
        assert dom.count('alt="frame at') == 2 * len(data.thumbnails)
        assert "separated by" in dom

    def test_the_matrix_has_the_time_axis_of_the_strips(
        self, chromium: str, data: PlotData, tmp_path: Path
    ) -> None:
        assert data.views[0].edges_s[0] == 0
        views = [replace(view, edges_s=view.edges_s + 9.0) for view in data.views]
        script = (
            "<script>const at = q => [...document.querySelectorAll(q)].map(e => {"
            "const r = e.getBoundingClientRect(); return [r.left, r.right]});"
            "document.title = JSON.stringify({bar: at('.segments span'), block: at('.matrix rect'),"
            "strip: at('.colors canvas'), matrix: at('.matrix canvas')});</script></body>"
        )
        path = tmp_path / "page.html"
        path.write_text(page(replace(data, views=views)).replace("</body>", script))
        dom, _ = self.load(chromium, path, tmp_path / "profile")
        places = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
        assert len(places["bar"]) == 2 * len(data.segments) and len(places["matrix"]) == 2
        for strip, matrix in (("bar", "block"), ("strip", "matrix")):
            np.testing.assert_allclose(places[strip], places[matrix], atol=2)

    def test_answers_to_the_keyboard(self, chromium: str, data: PlotData, tmp_path: Path) -> None:
        script = (
            "<script>const m = document.querySelector('.matrix');"
            "for (const key of ['ArrowDown', 'ArrowRight', 'ArrowRight'])"
            "m.dispatchEvent(new KeyboardEvent('keydown', {key}));</script></body>"
        )
        path = tmp_path / "page.html"
        path.write_text(page(data).replace("</body>", script))
        dom, console = self.load(chromium, path, tmp_path / "profile")
        assert console == []
        expected = f"cosine {data.views[0].similarity[1, 2]:.3f}"
        assert f"clips at 1.60 s and 2.67 s: {expected}" in dom

    def test_the_check_sees_errors(self, chromium: str, data: PlotData, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        broken = '<script>undefinedName();</script><img src="https://example.org/x.png"></body>'
        path.write_text(page(data).replace("</body>", broken))
        _, console = self.load(chromium, path, tmp_path / "profile")
        assert any("undefinedName" in line for line in console)
        assert any("Content Security Policy" in line for line in console)

    def test_is_self_contained(self, data: PlotData) -> None:
        text = page(data)
        addresses = set(re.findall(r"https?://[^\"' )]+", text))
        assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
        assert text.count("</script>") == 2  # the video's name did not end one
        assert "<b>Wrap" not in text


class TestTerminal:
    def test_grids(self, data: PlotData) -> None:
        view = data.views[0]
        grid = matrix_grid(view, 31, data.scale_of(view))
        assert grid.shape == (30, 31, 3)
        brightness = grid.astype(int).sum(axis=2)
        assert np.diagonal(brightness).mean() > brightness.mean() + 50
        line = change_line(view, 60)
        assert len(line) == 60 and "█" in line and "▁" in line
        # The change lies below the seconds at which it was measured.
        last = replace(view, change=np.arange(len(view.change)) == len(view.change) - 1.0)
        late = change_line(last, 64)
        column = max(i for i, tick in enumerate(late) if tick not in " ▁")
        assert abs(column - 64 * (view.change_s[-1] - view.edges_s[0]) / view.end_s) <= 1
        marks = segment_line(data, view, 64)
        assert marks[20] == 0 and marks[50] == 1 and marks[40] is None

    def test_one_row(self, store: Path) -> None:
        with open_store(store) as opened:
            view = view_features(opened["v_one"], "x")
        assert matrix_grid(view, 8, (0.0, 1.0)).shape == (8, 8, 3)
        assert change_line(view, 5) == "     "

    def test_command_draws_in_a_terminal(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        run = CliRunner().invoke
        result = run(cli, ["plot", str(store), "v_a"], standalone_mode=False)
        assert isinstance(result.exception, UsageError)  # no terminal, no --out
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "60")
        result = run(cli, ["plot", str(store), "a"])
        assert result.exit_code == 0, result.output
        assert result.output.count("▀") >= 50 * 20 and "v_a" in result.output


class TestThumbnails:
    def test_cut(self) -> None:
        rgb = np.zeros((90, 160, 3), np.uint8)
        assert cut_to(rgb, 1.0).shape == (90, 90, 3)
        assert cut_to(rgb, 4.0).shape == (40, 160, 3)

    def test_shrink_keeps_the_mean(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
        small = shrink(rgb, 90)
        assert small.shape == (90, 160, 3)
        assert abs(float(small.mean()) - float(rgb.mean())) < 1
        assert small.std() < 40  # averaged, not picked
        assert shrink(small, 90) is small

    def test_png(self) -> None:
        import base64
        import io

        image = pytest.importorskip("PIL.Image")
        rgb = np.random.default_rng(0).integers(0, 255, (7, 5, 3), np.uint8)
        uri = png_data_uri(rgb)
        data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        with image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(np.asarray(opened), rgb)


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
