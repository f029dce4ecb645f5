"""The exploratory stages: what they change, and the rows of their table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reproduction.explore import explored_table, plain
from reproduction.grid import GridPlan
from reproduction.measures import MEASURES
from reproduction.scales import EXPLORE
from reproduction.stages import Stage

CELL = "p0.9/seed10"


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Stage]:
    scale = replace(EXPLORE, seeds=EXPLORE.explored)
    return {stage.name: stage for stage in GridPlan(scale, tmp_path).stages()}


def run(stage: Stage, root: Path) -> Path:
    folder = root / stage.name
    folder.mkdir(parents=True)
    assert stage.call is not None
    stage.call(folder, print)
    return folder


def test_few_labels_are_those_of_the_first_training_videos(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    videos = {f"train_{i:04d}": {"subset": "training"} for i in range(30)}
    videos["valid_0000"] = {"subset": "validation"}
    (tmp_path / CELL / "data").mkdir(parents=True)
    (tmp_path / CELL / "data/annotations.json").write_text(json.dumps({"database": videos}))
    written = run(stages[f"{CELL}/few6"], tmp_path) / "annotations.json"
    left = json.loads(written.read_text())["database"]
    assert set(left) == {*(f"train_{i:04d}" for i in range(6)), "valid_0000"}


def test_localizers_that_see_few_videos_take_as_many_steps(stages: dict[str, Stage]) -> None:
    command = stages[f"{CELL}/tsp-none-few6.localized"].commands[0]
    # One batch per epoch in place of thirteen.
    assert command[command.index("--epochs") + 1] == str(13 * EXPLORE.bmn["epochs"])
    assert "few6/annotations.json" in command[command.index("--annotations") + 1]


def test_encoders_of_four_motions_see_no_other(stages: dict[str, Stage], tmp_path: Path) -> None:
    tables = tmp_path / CELL / "tables"
    tables.mkdir(parents=True)
    rows = [
        {"video-name": name, "action-label": label}
        for name, label in (("a", "bounce"), ("b", "shake"), ("c", "spin"), ("d", "pulse"))
    ]
    with (tables / "train_groundtruth.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["video-name", "action-label"])
        writer.writeheader()
        writer.writerows(rows)
    written = run(stages[f"{CELL}/four"], tmp_path) / "train_groundtruth.csv"
    with written.open(newline="") as stream:
        assert [row["video-name"] for row in csv.DictReader(stream)] == ["a", "c"]


def test_their_features_are_of_another_data_set(stages: dict[str, Stage]) -> None:
    for name in ("tsp-none-four.features", "tsp-none-four.localized"):
        assert "p0.9/seed11/data" in " ".join(stages[f"{CELL}/{name}"].commands[0])
    assert "p0.9/seed11" not in " ".join(stages[f"{CELL}/tsp-none-four"].commands[0])


def test_no_gap_holds_another_motion_where_context_does_not_decide() -> None:
    data = plain(EXPLORE).data
    assert data.other_chance == 0 and data.rehearsal_chance == pytest.approx(0.7)


def test_the_plans_own_stages_are_not_changed(stages: dict[str, Stage], tmp_path: Path) -> None:
    alone = GridPlan(replace(EXPLORE, seeds=EXPLORE.explored, explored=()), tmp_path).stages()
    for stage in alone:
        assert stages[stage.name].commands == stage.commands


def test_rows_appear_as_they_are_explored(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    assert explored_table(tmp_path, (10, 11)) == []
    for seed, value in ((10, 0.6), (11, 0.7)):
        for arm, lead in (("tsp-none-8", 0.05), ("tac-matched-8", 0.0)):
            folder = tmp_path / f"p0.9/seed{seed}/{arm}.localized"
            folder.mkdir(parents=True)
            (folder / MEASURES).write_text(json.dumps({"map": value + lead}))
    head, row = explored_table(tmp_path, (10, 11))
    assert len(head) == len(row) and row[0] == "clips of 8 frames" and row[3] == "+5.0"
