"""What plots are made of: the separation of foreground and background, and views of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.plotted import SEGMENTS, TSP, make_rows, make_store
from tspcli.analysis import PlotData, foreground_rows, separation, view_features, write_picture
from tspcli.analysis.page import page
from tspcli.analysis.plot_data import MOST_CELLS, cut_to, png_data_uri, principal_colors, shrink
from tspcli.errors import StoreError
from tspcli.sampling import Sampling
from tspcli.store import open_store


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
