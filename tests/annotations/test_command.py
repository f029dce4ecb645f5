"""`tsp annotations` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tspcli.annotations import read_groundtruth
from tspcli.cli.annotations import command


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


METADATA = "filename,video-duration,fps,video-frames\n"


def test_csv_with_metadata_then_check(tmp_path: Path) -> None:
    table = write(
        tmp_path / "actions.csv", "video,start,end,label\na,10,20,run\nb,5,9,run\nb,20,30,jump\n"
    )
    train = write(tmp_path / "m1.csv", METADATA + "a.mp4,60,30,1800\n")
    valid = write(tmp_path / "m2.csv", METADATA + "b.mp4,40,30,1200\n")
    out = tmp_path / "tables"
    arguments = ["csv", table, "--metadata", f"train={train}", "--metadata", f"valid={valid}"]
    result = CliRunner().invoke(command, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "train: 1 video, 1 action, 2 background rows" in result.output
    rows = read_groundtruth(out / "valid_groundtruth.csv")
    assert [(r.start_s, r.end_s) for r in rows if r.label is None] == [(0, 5), (9, 20), (30, 40)]

    arguments = ["check", "--train", str(out / "train_groundtruth.csv")]
    arguments += ["--valid", str(out / "valid_groundtruth.csv"), "--json"]
    arguments += ["--metadata", f"train={train}", "--metadata", f"valid={valid}"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 1
    report = json.loads(result.stdout)
    assert [f["kind"] for f in report["findings"]] == ["class-in-validation-alone"]
    assert report["chance"]["valid"][1]["majority"] == 3 / 5


@pytest.mark.parametrize(
    ("rule", "gaps"),
    [([], [(0, 10), (25, 60)]), (["--background", "union"], [(0, 10), (50, 60)])],
    ids=["as-released", "union"],
)
def test_activitynet_rows_are_those_released(
    tmp_path: Path, rule: list[str], gaps: list[tuple[float, float]]
) -> None:
    said = [{"segment": [10, 50], "label": "long"}, {"segment": [20, 25], "label": "short"}]
    video = {"subset": "training", "duration": 60, "annotations": said}
    source = write(tmp_path / "anet.json", json.dumps({"database": {"a": video}}))
    table = write(tmp_path / "train.csv", METADATA + "v_a.mp4,60,30,1800\n")
    arguments = ["activitynet", source, "--metadata", table, "--out", str(tmp_path), *rule]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"(used: {rule[-1] if rule else 'official'}): 1 (v_a.mp4)" in result.output
    rows = read_groundtruth(tmp_path / "train_groundtruth.csv")
    assert [(r.start_s, r.end_s) for r in rows if r.label is None] == gaps


def test_check_prints_chance_levels(tmp_path: Path) -> None:
    header = "filename,t-start,t-end,action-label,video-duration\n"
    table = write(tmp_path / "t.csv", header + "a.mp4,0,9,run,40\na.mp4,9,40,,40\n")
    result = CliRunner().invoke(
        command, ["check", "--train", table], standalone_mode=False, catch_exceptions=False
    )
    assert result.return_value == 0
    assert "chance level of the region head: 50.00 %" in result.output
    assert "chance level of the action head: 100.00 %" in result.output
