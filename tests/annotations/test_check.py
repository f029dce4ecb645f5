"""The check names everything that ruins a training, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tspcli.annotations import GroundTruthRow, read_groundtruth
from tspcli.annotations.check import CheckReport, check_groundtruth


def row(
    start_s: float, end_s: float, label: str | None, video: str = "a", duration_s: float = 60.0
) -> GroundTruthRow:
    return GroundTruthRow(video, start_s, end_s, label, duration_s, f"{video}.mp4", 30.0, 1800)


GOOD = {
    "train": [row(0, 10, None), row(10, 20, "run"), row(20, 30, "jump"), row(30, 60, None)],
    "valid": [row(5, 15, "run", "b"), row(20, 40, None, "b"), row(41, 50, "jump", "b")],
}
FILES: dict[str, dict[str, float | None]] = {"train": {"a.mp4": 60.0}, "valid": {"b.mp4": 60.1}}


def kinds(report: CheckReport) -> dict[str, tuple[str, str, int]]:
    return {f.kind: (f.severity, f.subset, f.count) for f in report.findings}


def test_good_tables_have_no_finding() -> None:
    report = check_groundtruth(GOOD, labels=["run", "jump"], videos=FILES)
    assert report.findings == []
    assert report.ok


@pytest.mark.parametrize(
    ("subset", "added", "kind", "severity"),
    [
        ("train", row(70, 80, "run"), "outside-video", "warning"),
        ("train", row(52, 64, "run", "c"), "beyond-video", "warning"),
        ("train", row(-3, 4, "run", "c"), "beyond-video", "warning"),
        ("train", row(40, 30, "run", "c"), "reversed", "error"),
        ("train", row(40, 60, "run", "c", 20), "duration-is-segment", "error"),
        ("train", row(40, 41, "run", "c"), "short-segments", "note"),
        ("train", row(59.5, 62, "run", "c", 60), "short-segments", "note"),
        ("train", row(0, 60, "run", "c"), "action-fills-video", "note"),
        ("train", row(35, 45, "run", "a", 61), "duration-varies", "error"),
        ("train", row(10.1, 20, "run"), "duplicates", "warning"),
        ("train", row(12, 18, None), "background-in-action", "warning"),
        ("train", row(40, 50, "swim", "c"), "unknown-class", "error"),
        ("valid", row(40, 50, "swim", "c"), "class-in-validation-alone", "error"),
        ("valid", row(42, 50, "run", "a"), "video-in-both", "error"),
        ("train", row(40, 50, "run", "gone"), "missing-video", "error"),
    ],
)
def test_each_trouble_is_found(
    subset: str, added: GroundTruthRow, kind: str, severity: str
) -> None:
    tables = {name: [*rows, added] if name == subset else rows for name, rows in GOOD.items()}
    files = {**FILES, subset: {**FILES[subset], "c.mp4": added.duration_s}}
    if kind == "missing-video":
        files = FILES
    found = kinds(check_groundtruth(tables, labels=["run", "jump"], videos=files))
    assert found[kind][:2] == (severity, subset)
    assert found[kind][2] == 1


def test_class_without_sample_and_region_without_sample() -> None:
    report = check_groundtruth({"train": GOOD["train"]}, labels=["run", "jump", "swim"])
    assert kinds(report) == {"empty-class": ("warning", "train", 1)}
    actions = {"train": [r for r in GOOD["train"] if r.label]}
    assert kinds(check_groundtruth(actions)) == {"missing-region": ("warning", "train", 1)}


def test_class_whose_training_segments_are_all_too_short() -> None:
    tables = {
        "train": [*GOOD["train"], row(40, 40.5, "swim")],
        "valid": [*GOOD["valid"], row(51, 55, "swim", "b")],
    }
    found = kinds(check_groundtruth(tables))
    assert found["class-in-validation-alone"] == ("error", "valid", 1)
    assert found["short-class"] == ("warning", "train", 1)


def test_files_extra_unreadable_and_of_other_length() -> None:
    files: dict[str, dict[str, float | None]] = {
        "train": {"a.mp4": None, "b.mp4": 60.0, "z.mp4": 3.0},
        "valid": {"b.mp4": 75.0},
    }
    found = kinds(check_groundtruth(GOOD, videos=files))
    assert found == {
        "unreadable-video": ("error", "train", 1),
        "extra-video": ("note", "train", 1),
        "duration-differs": ("warning", "valid", 1),
    }


def test_trimmed_clips_are_suspected() -> None:
    clips = [row(0, 5, "run", f"clip{i}", 5.0) for i in range(9)] + GOOD["train"]
    found = kinds(check_groundtruth({"train": clips}))
    assert found["action-fills-video"] == ("warning", "train", 9)


def test_chance_levels_count_clips_of_kept_segments() -> None:
    rows = [row(0, 10, "run"), row(10, 20, "run"), row(20, 30, "jump"), row(30, 60, None)]
    rows.append(row(31, 31.5, None))  # dropped
    action, region = check_groundtruth({"train": rows}, labels=["run", "jump", "x", "y"]).chance[
        "train"
    ]
    assert (action.n_clips, action.majority, action.uniform) == (15, pytest.approx(2 / 3), 0.25)
    assert (region.n_clips, region.majority, region.uniform) == (20, pytest.approx(3 / 4), 0.5)


def test_official_validation_table_is_usable(shared_data: Path) -> None:
    rows = read_groundtruth(shared_data / "activitynet_v1-3_valid_tsp_groundtruth.csv")
    report = check_groundtruth({"valid": rows})
    assert report.ok, report.findings
    found = kinds(report)
    assert found["background-in-action"][2] >= 26  # the official rule's flaw
    short = sum(
        min(r.end_s, r.duration_s) - max(r.start_s, 0) < 16 / 15
        and r.start_s < r.duration_s
        and r.end_s > 0
        for r in rows
    )
    assert found["short-segments"][2] == short
    assert dataclasses.asdict(report)["chance"]["valid"][1]["head"] == "region"
