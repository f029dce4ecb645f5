from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.localization.reference import tiou
from tspcli.annotations import Segment
from tspcli.errors import LocalizationError
from tspcli.localization.feature_windows import Window, mean_over, sample_grid, windows_of
from tspcli.localization.localize_config import LabelConfig
from tspcli.localization.training_windows import actions_in_window, boundary_labels, iou_map

actions = st.lists(
    st.tuples(st.floats(0, 9.5), st.floats(0.25, 10)).map(lambda a: (a[0], min(a[0] + a[1], 10.0))),
    max_size=5,
)


def test_cells_show_the_features_of_their_own_seconds() -> None:
    # A feature that is the time itself: any shift would show.
    center_s = 8 / 15 + np.arange(60) * 16 / 15
    rows = np.stack([center_s, -center_s], axis=1).astype(np.float32)
    window = Window("v", 0.0, 64.0, 64.0)
    for n_cells in (100, 30, 7):
        cells = sample_grid(rows, center_s, window, n_cells)
        middle_s = (np.arange(n_cells) + 0.5) * 64.0 / n_cells
        cell_s = 64.0 / n_cells
        inside = (middle_s - cell_s / 2 >= center_s[0]) & (middle_s + cell_s / 2 <= center_s[-1])
        assert inside.sum() >= n_cells - 4
        np.testing.assert_allclose(cells[inside, 0], middle_s[inside], atol=1e-5)
        np.testing.assert_allclose(cells[:, 1], -cells[:, 0])
        assert cells[0, 0] >= center_s[0] - 1e-6


def test_no_row_of_a_long_video_is_passed_over() -> None:
    center_s = 0.5 + np.arange(1000.0)
    window = Window("v", 0.0, 1000.0, 1000.0)
    for row in (0, 123, 500, 777, 999):
        rows = np.zeros((1000, 1), np.float32)
        rows[row] = 1
        cells = sample_grid(rows, center_s, window, 10)
        assert cells[row // 100, 0] == pytest.approx(0.01, rel=1e-4)


def test_one_row_fills_its_video_and_no_row_is_an_error() -> None:
    window = Window("v", 0.0, 3.0, 3.0)
    cells = sample_grid(np.ones((1, 2), np.float32), np.array([0.5]), window, 4)
    np.testing.assert_array_equal(cells, np.ones((4, 2)))
    with pytest.raises(LocalizationError, match="'v'"):
        sample_grid(np.ones((0, 2), np.float32), np.zeros(0), window, 4)


def test_windows_cover_the_video_by_halves() -> None:
    assert windows_of("v", 30.0, None) == [Window("v", 0.0, 30.0, 30.0)]
    windows = windows_of("v", 30.0, 8.0)
    assert [w.start_s for w in windows] == [0, 4, 8, 12, 16, 20, 24]
    assert len(windows_of("v", 8.0, 8.0)) == len(windows_of("v", 3.0, 8.0)) == 1
    assert len(windows_of("v", 8.1, 8.0)) == 2
    beyond = sample_grid(np.ones((30, 1), np.float32), np.arange(30.0), windows[-1], 8)
    np.testing.assert_array_equal(beyond[:, 0], [1, 1, 1, 1, 1, 1, 0, 0])
    with pytest.raises(LocalizationError, match=r"0\.0 s"):
        windows_of("v", 0.0, None)


@given(
    st.lists(st.tuples(st.floats(-2, 12), st.floats(0, 9)), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_means_are_those_of_plain_loops(segments: list[tuple[float, float]], n_rows: int) -> None:
    rows = np.random.default_rng(n_rows).normal(size=(n_rows, 3)).astype(np.float32)
    center_s = 0.53 + np.arange(n_rows) * 1.07
    start_s = np.array([segment[0] for segment in segments])
    end_s = start_s + [segment[1] for segment in segments]
    means = mean_over(rows, center_s, start_s, end_s)
    for mean, start, end in zip(means, start_s, end_s, strict=True):
        inside = [row for row, time in zip(rows, center_s, strict=True) if start <= time <= end]
        if not inside:
            distance = np.abs(center_s - (start + end) / 2)
            inside = [rows[int(np.argmin(distance))]]
        np.testing.assert_allclose(mean, np.mean(inside, axis=0), atol=1e-5)


@given(actions, st.integers(1, 10), st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.2, 1.5]))
def test_labels_are_those_of_plain_loops(
    found: list[tuple[float, float]], durations: int, ratio: float, least: float
) -> None:
    n_cells = 10
    config = LabelConfig(region_ratio=ratio, region_min_cells=least)
    array = np.array(found).reshape(-1, 2)
    starts, ends = boundary_labels(array, n_cells, config)
    for cell in range(n_cells):
        for curve, side, line in ((starts, 0, cell), (ends, 1, cell + 1)):
            best = 0.0
            for action in found:
                half = max(ratio * (action[1] - action[0]), least)
                low = max(line - 0.5, action[side] - half)
                high = min(line + 0.5, action[side] + half)
                best = max(best, high - low)
            assert curve[cell] == pytest.approx(best, abs=1e-5)
    table = iou_map(array, n_cells, durations)
    for duration in range(1, durations + 1):
        for start in range(n_cells):
            overlaps = [tiou((start, start + duration), action) for action in found]
            expected = max(overlaps, default=0.0) if start + duration <= n_cells else 0.0
            assert table[duration - 1, start] == pytest.approx(expected, abs=1e-5)


def test_labels_and_cells_share_one_clock() -> None:
    """A proposal whose IoU is 1 starts and ends on lines that are labelled as boundaries."""
    window = Window("v", 0.0, 20.0, 20.0)
    found = actions_in_window([Segment(4.0, 20.0, "x")], window, 10, LabelConfig())
    np.testing.assert_allclose(found, [[2.0, 10.0]])
    table = iou_map(found, 10, 10)
    duration, start = np.unravel_index(table.argmax(), table.shape)
    assert (duration + 1, start) == (8, 2)
    assert table.max() == 1
    starts, ends = boundary_labels(found, 10, LabelConfig(region_ratio=0, region_min_cells=0.5))
    assert starts.argmax() == start
    assert ends.argmax() == start + duration == 9


def test_an_action_belongs_to_the_windows_that_hold_most_of_it() -> None:
    segments = [Segment(1.0, 3.0, "a"), Segment(7.0, 9.0, "b"), Segment(-1.0, 99.0, "c")]
    config = LabelConfig(window_coverage=0.9)
    first = actions_in_window(segments, Window("v", 0.0, 8.0, 16.0), 8, config)
    np.testing.assert_allclose(first, [[1.0, 3.0]])
    second = actions_in_window(segments, Window("v", 4.0, 8.0, 16.0), 8, config)
    np.testing.assert_allclose(second, [[3.0, 5.0]])
    whole = actions_in_window(segments, Window("v", 0.0, 16.0, 16.0), 16, config)
    np.testing.assert_allclose(whole, [[1.0, 3.0], [7.0, 9.0], [0.0, 16.0]])
    outside = actions_in_window([Segment(20.0, 30.0, "d")], Window("v", 0, 16, 16), 16, config)
    assert len(outside) == 0
