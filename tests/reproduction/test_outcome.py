"""What the report says of given figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reproduction.inference import Contrast, holm, power, seeds_needed
from reproduction.measures import MEASURES, error_shares, head_figures, with_true_labels
from reproduction.outcome import Group, Outcome, decision, planned_table, planned_tests, verdict
from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.localization.results import Prediction

pytest.importorskip("scipy")
TITLES = {
    "trimmed": "trimmed clips alone",
    "tac": "TAC",
    "tac-matched": "TAC, matched steps",
    "tsp-none": "TSP, no GVF",
    "tsp-max": "TSP, max GVF",
}


def outcome(root: Path, maps: dict[str, list[float]], share: float = 0.9) -> Outcome:
    root = root / f"p{share:g}"
    n_seeds = max(map(len, maps.values()))
    for name, values in maps.items():
        for seed, value in enumerate(values):
            folder = root / f"s{seed}" / f"{name}.localized"
            folder.mkdir(parents=True)
            figures = {"map": value, "auc": value, "oracle_map": value, "separation": 0.1 * value}
            (folder / MEASURES).write_text(json.dumps(figures))
    folders = {seed: root / f"s{seed}" for seed in range(n_seeds)}
    annotations = dict.fromkeys(folders, root / "annotations.json")
    published = {"tsp-max": {"map": 0.3581}}
    return Outcome(Group("Some", folders, TITLES, annotations, published=published, share=share))


def test_a_lead_whose_interval_is_above_zero_localizes_better(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac-matched": [0.3, 0.4, 0.35], "tsp-none": [0.5, 0.62, 0.56]})
    assert "+21.0 points" in verdict(found) and verdict(found).endswith("localizes better.")
    assert found.table()[1][:3] == ["TAC, matched steps", "3", "35.0 ± 5.0"]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ((0.01, 0.011, 0.009), "refuted"),  # clear of zero, but smaller than what would matter
        ((-0.05, -0.06, -0.04), "refuted"),
        ((0.10, -0.08, 0.02), "undecided"),
        ((0.05, 0.06, 0.07), "localizes better"),
    ],
)
def test_decisions_follow_the_design(differences: tuple[float, ...], expected: str) -> None:
    assert decision(Contrast(differences)) == expected


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac-matched": [0.3], "tsp-none": [0.5]})
    assert "one seed, which decides nothing" in verdict(found)


def test_seeds_that_lack_an_arm_are_left_out_of_the_pairs(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac-matched": [0.3, 0.4], "tsp-none": [0.5]})
    contrast = found.contrast("tsp-none", "tac-matched")
    assert contrast is not None and contrast.differences == pytest.approx((0.2,))


def grid(tmp_path: Path, lead: float) -> list[Outcome]:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, 9)
    outcomes = []
    for share in (0.0, 0.9):
        noise = {name: rng.normal(0, 0.01, 9) for name in TITLES}
        maps = {name: (base + noise[name]).tolist() for name in TITLES}
        if share:
            for name in ("tsp-none", "tsp-max"):
                maps[name] = [value + lead for value in maps[name]]
        outcomes.append(outcome(tmp_path, maps, share))
    return outcomes


def test_the_gates_open_one_after_the_other(tmp_path: Path) -> None:
    tests = planned_tests(grid(tmp_path, 0.1))
    assert [test.role for test in tests[:3]] == ["primary", "second", "third"]
    assert all(test.rejected for test in tests[:3])
    assert len(planned_table(tests)) == len(tests) + 1


def test_a_gate_that_stays_shut_closes_those_behind_it(tmp_path: Path) -> None:
    primary, second, third, *secondary = planned_tests(grid(tmp_path, 0.0))
    assert primary.rejected is False and second.rejected is None and third.rejected is None
    assert {test.role for test in secondary} == {"secondary"}


def test_contrasts_by_hand() -> None:
    contrast = Contrast((1.0, 2.0, 3.0))
    assert contrast.mean == 2 and contrast.spread == 1
    low, high = contrast.interval
    assert (low, high) == pytest.approx(
        (2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), 1e-4
    )
    assert contrast.p_value == pytest.approx(0.0742, abs=1e-3)
    assert contrast.sign_flip_p == 0.25  # all signs alike, two of eight ways
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert power(0.0, 1.0, 9) == pytest.approx(0.05, abs=1e-6)
    assert seeds_needed(6, 5, least=9, most=15, wanted=0.9) == 10
    assert seeds_needed(1, 5, least=9, most=15, wanted=0.9) == 15


def annotated() -> Annotations:
    segments = (Segment(0.0, 10.0, "a"), Segment(20.0, 30.0, "a"))
    return Annotations({"v_x": AnnotatedVideo(segments, None, 40.0)})


def test_errors_are_told_apart() -> None:
    found = [
        Prediction(0.0, 10.0, 0.9, "a"),  # right
        Prediction(0.0, 9.0, 0.8, "a"),  # double
        Prediction(20.0, 24.0, 0.7, "a"),  # localization
        Prediction(20.0, 30.0, 0.6, "b"),  # confusion
        Prediction(20.0, 24.0, 0.5, "b"),  # both
        Prediction(12.0, 18.0, 0.4, "a"),  # background
    ]
    shares = error_shares(annotated(), {"x": found})
    assert {shares[f"error_{kind}"] for kind in ("double", "localization", "confusion")} == {1 / 6}
    assert shares["error_both"] == shares["error_background"] == 1 / 6
    assert shares["missed"] == 0.5


def test_true_labels_replace_those_of_the_proposals() -> None:
    found = with_true_labels(annotated(), {"x": [Prediction(0.0, 1.0, 0.5, "b")]})
    assert found == {"x": [Prediction(0.0, 1.0, 0.5, "a")]}


def test_what_the_head_says_outside_of_the_actions() -> None:
    centers = np.array([5.0, 15.0, 25.0, 35.0])
    said = {"v_x": (centers, np.array([0, 0, 0, 1]))}
    figures = head_figures(said, ("a", "b"), annotated())
    assert figures == {"says_inside": 1.0, "says_outside": 0.5, "background_share": 0.5}
