from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.localization.reference import soft_nms as reference_nms
from tspcli.errors import UsageError
from tspcli.localization.feature_windows import Window
from tspcli.localization.localize_config import PredictConfig
from tspcli.localization.prediction import Proposals, boundary_candidates, join, propose, soft_nms

segments = st.tuples(st.integers(0, 10), st.integers(1, 8), st.sampled_from([0.1, 0.5, 0.9]))


@given(
    st.lists(segments, max_size=25),
    st.sampled_from([0.2, 0.4]),
    st.sampled_from([(0.5, 0.9), (0.0, 0.0), (0.3, 0.3)]),
    st.integers(1, 12),
)
def test_soft_nms_is_that_of_plain_loops(
    items: list[tuple[int, int, float]], sigma: float, bounds: tuple[float, float], limit: int
) -> None:
    start = np.array([float(item[0]) for item in items])
    end = start + [float(item[1]) for item in items]
    scores = [item[2] + 1e-6 * index for index, item in enumerate(items)]
    config = PredictConfig(
        nms_sigma=sigma, nms_low=bounds[0], nms_high=bounds[1], max_proposals=limit
    )
    kept = soft_nms(Proposals(start, end, np.array(scores)), 18.0, config)
    pairs = list(zip(start, end, strict=True))
    expected = reference_nms(pairs, scores, 18.0, sigma, *bounds, limit)
    np.testing.assert_allclose(kept.score, [score for _, score in expected])
    np.testing.assert_array_equal(kept.start_s, [pairs[index][0] for index, _ in expected])
    np.testing.assert_array_equal(kept.end_s, [pairs[index][1] for index, _ in expected])


def test_soft_nms_brings_back_what_hides_behind_copies() -> None:
    copies = [(0.0, 10.0, 0.9), (0.1, 10.0, 0.89), (0.0, 10.1, 0.88), (20.0, 25.0, 0.5)]
    proposals = Proposals(*(np.array(column) for column in zip(*copies, strict=True)))
    kept = soft_nms(proposals, 100.0, PredictConfig(max_proposals=2))
    assert kept.start_s.tolist() == [0.0, 20.0]
    assert proposals.score.tolist() == [0.9, 0.89, 0.88, 0.5]


def test_candidates_are_peaks_and_high_values() -> None:
    curve = np.array([0.3, 0.1, 0.2, 0.1, 0.6, 0.9, 0.7, 0.05])
    expected = [True, False, True, False, True, True, True, False]
    assert boundary_candidates(curve, 0.5).tolist() == expected
    assert boundary_candidates(np.array([0.2]), 0.5).tolist() == [True]


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000))
def test_proposals_are_those_of_plain_loops(n_cells: int, durations: int, seed: int) -> None:
    durations = min(durations, n_cells)
    rng = np.random.default_rng(seed)
    start, end = rng.random(n_cells), rng.random(n_cells)
    confidence = rng.random((durations, n_cells))
    window = Window("v", 3.0, 2.0 * n_cells, 3.0 + 2.0 * n_cells - 2.5)
    found = propose(start, end, confidence, window, 0.5)
    expected = []
    first = boundary_candidates(start, 0.5)
    last = boundary_candidates(end, 0.5)
    for i in range(n_cells):
        for j in range(i, n_cells):
            begin_s = 3.0 + 2.0 * i
            end_s = min(3.0 + 2.0 * (j + 1), window.video_s)
            if first[i] and last[j] and j - i < durations and begin_s < end_s:
                expected.append((begin_s, end_s, start[i] * end[j] * confidence[j - i, i]))
    columns = np.stack(found, axis=1)
    np.testing.assert_allclose(sorted(columns.tolist()), sorted(expected))
    twice = join([found, found])
    assert len(twice.score) == 2 * len(expected)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="sigma is 0"):
        PredictConfig(nms_sigma=0)
    with pytest.raises(UsageError, match="max_proposals"):
        PredictConfig(max_proposals=0)
