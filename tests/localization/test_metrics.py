from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.localization.reference import Guess, Truth, average_precision, recall_curve
from tspcli.errors import UsageError
from tspcli.localization import matching as pairing
from tspcli.localization.metrics import (
    ACTIVITYNET_TIOUS,
    THUMOS14_TIOUS,
    evaluate_detection,
    evaluate_proposals,
)
from tspcli.localization.results import SegmentTable, table_of


def truth_table(truths: list[Truth]) -> SegmentTable:
    return table_of(*zip(*truths, strict=True), [])


def guess_table(guesses: list[Guess]) -> SegmentTable:
    columns = list(zip(*guesses, strict=True)) or [[]] * 5
    return table_of(*columns)


# Whole seconds make equal overlaps and segments without length common; few scores make ties.
seconds = st.integers(0, 12)
videos = st.sampled_from(["a", "b", "c"])
labels = st.sampled_from(["x", "y"])
scores = st.sampled_from([0.125, 0.25, 0.5]) | st.floats(0, 1)
truths = st.tuples(videos, labels, seconds, seconds).map(
    lambda t: (t[0], t[1], float(min(t[2:])), float(max(t[2:])))
)
guesses = st.tuples(
    st.sampled_from(["a", "b", "c", "other"]), labels, seconds, seconds, scores
).map(lambda g: (g[0], g[1], float(min(g[2:4])), float(max(g[2:4])), g[4]))


@given(st.lists(truths, min_size=1, max_size=12), st.lists(guesses, max_size=40))
@settings(max_examples=200)
@pytest.mark.parametrize("tious", [ACTIVITYNET_TIOUS, THUMOS14_TIOUS])
def test_average_precision_is_that_of_plain_loops(
    tious: tuple[float, ...], truths: list[Truth], guesses: list[Guess]
) -> None:
    metrics = evaluate_detection(truth_table(truths), guess_table(guesses), tious)
    expected = [
        [average_precision(truths, guesses, label, threshold) for label in metrics.labels]
        for threshold in tious
    ]
    assert set(metrics.labels) == {truth[1] for truth in truths}
    np.testing.assert_allclose(metrics.ap, expected, atol=1e-12)
    np.testing.assert_allclose(metrics.average_map, np.mean(expected), atol=1e-12)


@given(
    st.lists(truths, min_size=1, max_size=12),
    st.lists(guesses, min_size=1, max_size=40),
    st.sampled_from([None, 1.0, 2.5, 10.0, 100.0]),
)
@settings(max_examples=200)
def test_recall_is_that_of_plain_loops(
    truths: list[Truth], guesses: list[Guess], max_average: float | None
) -> None:
    metrics = evaluate_proposals(
        truth_table(truths), guess_table(guesses), max_average_proposals=max_average
    )
    recall, axis = recall_curve(truths, guesses, ACTIVITYNET_TIOUS, max_average)
    np.testing.assert_allclose(metrics.recall, recall, atol=1e-12)
    np.testing.assert_allclose(metrics.average_proposals, axis, rtol=1e-12)
    average = np.mean(recall, axis=0)
    area = sum((axis[i] - axis[i - 1]) * (average[i] + average[i - 1]) / 2 for i in range(1, 100))
    np.testing.assert_allclose(metrics.auc, area / axis[-1], atol=1e-12)


def test_memory_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truths = [(f"v{rng.integers(5)}", "x", float(t), float(t + 5)) for t in rng.uniform(0, 50, 40)]
    found = [
        (f"v{rng.integers(6)}", "x", float(t), float(t + 4), float(rng.random()))
        for t in rng.uniform(0, 50, 300)
    ]
    truth, guess = truth_table(truths), guess_table(found)
    whole = evaluate_detection(truth, guess), evaluate_proposals(truth, guess)
    monkeypatch.setattr(pairing, "PAIRS_AT_ONCE", 7)
    parts = evaluate_detection(truth, guess), evaluate_proposals(truth, guess)
    assert whole[0].average_map > 0.01
    np.testing.assert_array_equal(whole[0].ap, parts[0].ap)
    np.testing.assert_array_equal(whole[1].recall, parts[1].recall)


def test_a_hand_worked_case() -> None:
    truth = truth_table([("a", "x", 0, 10), ("a", "x", 20, 30), ("b", "y", 0, 10)])
    guess = guess_table(
        [
            ("a", "x", 0, 10, 0.9),  # right
            ("a", "x", 0, 10, 0.8),  # that one is taken
            ("a", "x", 21, 30, 0.7),  # tIoU 0.9
            ("a", "z", 0, 10, 0.6),  # not a class here
        ]
    )
    metrics = evaluate_detection(truth, guess)
    by_label = dict(zip(metrics.labels, metrics.ap.T, strict=True))
    # Recall 1/2 at precision 1, then 1 at 2/3; the second is lost above 0.9.
    np.testing.assert_allclose(by_label["x"][:9], 0.5 + 0.5 * 2 / 3)
    np.testing.assert_allclose(by_label["x"][9], 0.5)
    np.testing.assert_array_equal(by_label["y"], 0)
    assert metrics.n_unknown_label == 1
    assert metrics.map_at(0.5) == pytest.approx((0.5 + 1 / 3) / 2)
    with pytest.raises(UsageError, match=r"0\.33"):
        metrics.map_at(0.33)


def test_each_prediction_prefers_the_ground_truth_it_overlaps_most() -> None:
    truth = truth_table([("a", "x", 0, 10), ("a", "x", 3, 13)])
    # Each reaches both at 0.5; the first must leave the first action to the other, whose 1.0 it is.
    guess = guess_table([("a", "x", 2.5, 12.5, 0.9), ("a", "x", 0, 10, 0.8)])
    metrics = evaluate_detection(truth, guess, [0.5, 0.9])
    np.testing.assert_allclose(metrics.ap[:, 0], [1.0, 1.0])


def test_what_cannot_be_evaluated_is_an_error() -> None:
    truth = truth_table([("a", "x", 0, 10)])
    none = guess_table([])
    assert evaluate_detection(truth, none).average_map == 0
    with pytest.raises(UsageError, match="no proposals"):
        evaluate_proposals(truth, none)
    with pytest.raises(UsageError, match="no annotated action"):
        evaluate_detection(none, none)
    with pytest.raises(UsageError, match="thresholds"):
        evaluate_detection(truth, none, [0.0])
    with pytest.raises(UsageError, match="-1"):
        evaluate_proposals(truth, guess_table([("a", "x", 0, 1, 1.0)]), max_average_proposals=-1)


def test_ar_beyond_the_curve_is_not_made_up() -> None:
    truth = truth_table([("a", "x", 0, 10)])
    guess = guess_table([("a", "x", 0, 10, 1.0), ("a", "x", 5, 20, 0.5)])
    metrics = evaluate_proposals(truth, guess, max_average_proposals=None)
    assert metrics.ar_at(2) == 1.0
    assert metrics.ar_at(10) is None
    assert metrics.to_dict()["ar"] == {"1": 1.0, "10": None, "100": None}
