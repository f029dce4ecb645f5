"""What the report says of given figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reproduction.measures import COLUMNS, MEASURES, head_figures
from reproduction.outcome import Group, Outcome, markdown
from reproduction.report import _markdown

TITLES = {"tac": "TAC", "tsp-none": "TSP, no GVF", "tsp-max": "TSP, max GVF"}


def outcome(root: Path, maps: dict[str, list[float]]) -> Outcome:
    for name, values in maps.items():
        for seed, value in enumerate(values):
            folder = root / f"s{seed}" / f"{name}.measures"
            folder.mkdir(parents=True)
            figures = {"map": value, "auc": 0.5, "separation": 0.1 * value}
            (folder / MEASURES).write_text(json.dumps(figures))
    group = Group(
        "Some videos",
        root,
        lambda seed, name: f"s{seed}/{name}",
        tuple(range(len(maps["tac"]))),
        {name: TITLES[name] for name in maps},
        {16: "tsp-max"},
        root / "annotations.json",
        published={"tsp-max": {"map": 0.3581}},
    )
    return Outcome(group)


def test_the_order_of_the_paper(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac": [0.3, 0.4], "tsp-max": [0.5, 0.62]})
    assert found.confirmed
    assert found.verdict() == (
        "Some videos: TSP (max GVF) localizes better than TAC: mean mAP 56.00 against 35.00, lead "
        "+21.00 with a standard error of 1.00; TSP ahead in 2 of 2 seeds."
    )


def test_a_lead_within_the_spread_is_none(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac": [0.3, 0.4], "tsp-max": [0.5, 0.35]})
    assert not found.confirmed
    assert "does NOT come out" in found.verdict()
    assert "alike within the spread" in found.verdict() and "1 of 2 seeds" in found.verdict()
    assert found.expectation_table()[1][-1] == "within the spread"


def test_another_order_is_said_first(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac": [0.3, 0.4], "tsp-max": [0.2, 0.3]})
    assert not found.confirmed
    assert "does NOT come out; TSP (max GVF) does not localize better" in found.verdict()
    assert "ahead in 0 of 2 seeds" in found.verdict()
    assert found.expectation_table()[1][-1] == "NO"


def test_a_tie_is_no_lead(tmp_path: Path) -> None:
    assert not outcome(tmp_path, {"tac": [0.4, 0.4], "tsp-max": [0.4, 0.4]}).confirmed


@pytest.mark.parametrize(("lead", "order"), [(0.0001, "comes out"), (-0.2, "does NOT come out")])
def test_one_seed_cannot_tell(tmp_path: Path, lead: float, order: str) -> None:
    found = outcome(tmp_path, {"tac": [0.4], "tsp-max": [0.4 + lead]})
    assert not found.confirmed
    assert found.verdict() == (
        "Some videos: one seed cannot tell whether TSP (max GVF) localizes better than TAC; in it "
        f"the order of the paper {order}: mean mAP {40 + 100 * lead:.2f} against 40.00."
    )
    rows = found.expectation_table()[1:]
    assert {row[-1] for row in rows} == {"one seed cannot tell"}
    assert not any("inf" in cell for row in rows for cell in row)


def test_the_markdown_report_has_every_figure(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac": [0.3, 0.4], "tsp-max": [0.5, 0.62]})
    text = _markdown("Title", [found], {"seeds": "0, 1"}, [])
    assert text.splitlines()[0] == found.verdict()
    headers = [line for line in text.splitlines() if line.startswith(("| encoder", "| frames"))]
    assert [line.split(" | ")[0] for line in headers] == [
        "| encoder", "| frames a clip", "| encoder, seed",
    ]  # fmt: skip
    for line in headers:
        for title in ("AR@1", "AR@10", "AR@100", "AUC", *(column.title for column in COLUMNS)):
            assert title in line.strip("| ").split(" | ")
    assert "| TAC, 1 | –" in text and "Mean ± standard deviation" in text


def test_tables_have_means_and_spread(tmp_path: Path) -> None:
    found = outcome(tmp_path, {"tac": [0.3, 0.4], "tsp-none": [0.1, 0.1], "tsp-max": [0.5, 0.7]})
    rows = {row[0]: row for row in found.table()}
    place = rows["encoder"].index("mean mAP")
    assert rows["TAC"][place] == "35.00 ± 7.07"
    assert rows["TSP, max GVF"][place] == "60.00 ± 14.14"
    assert rows["TSP, max GVF, published"][place] == "35.81"
    assert rows["TAC"][rows["encoder"].index("region head")] == "–"
    assert found.clip_length_table()[1][0] == "16"
    expected = {row[0]: row for row in found.expectation_table()[1:]}
    assert expected["TSP without GVF localizes better than TAC"][-2:] == ["0 of 2", "NO"]
    assert expected["TSP (max GVF) localizes better than TAC"][-3:] == [
        "+25.00 (± 5.00)", "2 of 2", "yes",
    ]  # fmt: skip
    # Nothing is expected of encoders that were not trained.
    assert not any("region head alone" in text for text in expected)


def test_markdown() -> None:
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"


def test_one_seed_shows_no_spread() -> None:
    assert COLUMNS[0].show([0.5]) == "50.00"
    assert COLUMNS[-1].show([0.5]) == "0.500"
    assert COLUMNS[0].show([None]) == "–"


def test_head_accuracies_are_those_of_the_chosen_epoch(tmp_path: Path) -> None:
    lines = []
    for epoch, (accuracy, best) in enumerate([(0.5, True), (0.9, True), (0.7, False)]):
        lines.append(
            json.dumps(
                {
                    "epoch": epoch, "train": {}, "score": accuracy, "best": best,
                    "valid": {"loss": 1.0, "action_accuracy": accuracy}, "learning_rates": {},
                    "clips_per_s": 1.0, "wait_percent": 0.0, "train_s": 1.0, "valid_s": 1.0,
                }
            )
        )  # fmt: skip
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    assert head_figures(tmp_path) == {"action_accuracy": 0.9}
    assert head_figures(tmp_path / "none") == {}


@pytest.mark.parametrize("key", [column.key for column in COLUMNS])
def test_every_column_has_its_own_key(key: str) -> None:
    assert [column.key for column in COLUMNS].count(key) == 1
