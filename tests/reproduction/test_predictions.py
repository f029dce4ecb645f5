"""The report holds the design's predictions against figures, and shows failed ones first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reproduction.measures import MEASURES
from reproduction.outcome import Group, Outcome
from reproduction.predictions import prediction_table, predictions

pytest.importorskip("scipy")
ARMS = ("trimmed", "tac", "tac-matched", "tsp-none", "tsp-max", "permuted")
EXPECTED = {
    0.0: {"trimmed": 0.70, "tac": 0.72, "tac-matched": 0.74, "tsp-none": 0.75, "tsp-max": 0.76},
    0.5: {"trimmed": 0.60, "tac": 0.62, "tac-matched": 0.64, "tsp-none": 0.68, "tsp-max": 0.69},
    0.9: {
        "trimmed": 0.4, "tac": 0.5, "tac-matched": 0.55, "tsp-none": 0.62, "tsp-max": 0.63,
        "permuted": 0.55,
    },
}  # fmt: skip


def outcomes(root: Path, maps: dict[float, dict[str, float]]) -> list[Outcome]:
    found = []
    for share, arms in maps.items():
        folders = {seed: root / f"p{share:g}" / f"seed{seed}" for seed in (10, 11, 12)}
        for seed, folder in folders.items():
            for arm, value in arms.items():
                figures = {
                    "map": value + 0.001 * (seed * len(arm) % 5),
                    "oracle_map": value,
                    "unseen_map": value - (0.2 if arm == "tac-matched" else 0.1),
                    "background_share": 0.5 + share / 4,
                    "error_localization": 0.2 if arm == "tac-matched" else 0.1,
                    "error_background": 0.1,
                }
                (folder / f"{arm}.localized").mkdir(parents=True)
                (folder / f"{arm}.localized" / MEASURES).write_text(json.dumps(figures))
            (folder / "single-frame.features").mkdir()
            ratio = json.dumps({"scene_ratio": 0.08 + 0.8 * share})
            (folder / "single-frame.features" / MEASURES).write_text(ratio)
        found.append(Outcome(Group("", folders, dict.fromkeys(ARMS, ""), {}, share=share)))
    return found


def test_figures_as_expected_fulfil_all_predictions(tmp_path: Path) -> None:
    assert [row.holds for row in predictions(outcomes(tmp_path, EXPECTED))] == [True] * 10


@pytest.mark.parametrize(
    ("arm", "value", "failed"),
    [
        ("permuted", 0.61, "Permuted"),
        ("tsp-none", 0.53, "TSP without GVF leads"),
        ("tsp-max", 0.54, "TSP with max GVF"),
        ("trimmed", 0.52, "Trimmed"),
    ],
)
def test_what_came_out_otherwise_comes_first(
    arm: str, value: float, failed: str, tmp_path: Path
) -> None:
    maps = {**EXPECTED, 0.9: {**EXPECTED[0.9], arm: value}}
    rows = predictions(outcomes(tmp_path, maps))
    assert failed in " ".join(row.text for row in rows if row.holds is False)
    assert rows[0].holds is False and rows[-1].holds is True
    assert prediction_table(outcomes(tmp_path / "again", maps))[1][2] == "FAILED"


def test_nothing_is_said_before_all_shares_have_run(tmp_path: Path) -> None:
    assert prediction_table(outcomes(tmp_path, {0.9: EXPECTED[0.9]})) == []
