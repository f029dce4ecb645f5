"""The tables come out as the official ones, with background where no action is."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.refusals import refused
from tspcli.annotations import (
    AnnotatedVideo,
    Annotations,
    GroundTruthRow,
    Segment,
    VideoEntry,
    read_actions,
    read_groundtruth,
    read_metadata,
    write_groundtruth,
)
from tspcli.annotations.convert import convert
from tspcli.annotations.dialects import GapRule
from tspcli.annotations.training_tables import GROUNDTRUTH_COLUMNS, background_segments
from tspcli.errors import AnnotationError, UsageError


def by_video(rows: Sequence[GroundTruthRow], region: str) -> dict[str, list[GroundTruthRow]]:
    found: dict[str, list[GroundTruthRow]] = defaultdict(list)
    for row in rows:
        if row.region == region:
            found[row.filename].append(row)
    return found


def same_rows(ours: list[GroundTruthRow], official: list[GroundTruthRow]) -> bool:
    def key(row: GroundTruthRow) -> tuple[float, float, str]:
        return row.start_s, row.end_s, row.label or ""

    pairs = zip(sorted(ours, key=key), sorted(official, key=key), strict=False)
    return len(ours) == len(official) and all(
        abs(a.start_s - b.start_s) < 1e-6 and abs(a.end_s - b.end_s) < 1e-6 and a.label == b.label
        for a, b in pairs
    )


def agreement(ours: list[GroundTruthRow], official: list[GroundTruthRow], region: str) -> float:
    """Share of the videos that both tables have whose rows of one region are equal."""
    both = {row.filename for row in ours} & {row.filename for row in official}
    mine, theirs = by_video(ours, region), by_video(official, region)
    return sum(same_rows(mine[name], theirs[name]) for name in both) / len(both)


@pytest.mark.parametrize(("rule", "least"), [("union", 0.994), ("official", 0.9999)])
def test_activitynet_agrees_with_the_official_table(
    shared_data: Path, tmp_path: Path, rule: GapRule, least: float
) -> None:
    convert(
        read_actions(shared_data / "anet_anno_action.json"),
        {"valid": read_metadata(shared_data / "activitynet_v1-3_valid_metadata.csv")},
        tmp_path,
        gap_rule=rule,
    )
    ours = read_groundtruth(tmp_path / "valid_groundtruth.csv")
    official = read_groundtruth(shared_data / "activitynet_v1-3_valid_tsp_groundtruth.csv")
    assert len({row.filename for row in ours}) > 4700
    assert agreement(ours, official, "No action") >= least
    assert agreement(ours, official, "Action") >= 0.999
    theirs = json.loads((shared_data / "activitynet_v1-3_action_label_mapping.json").read_text())
    assert json.loads((tmp_path / "action_label_mapping.json").read_text()) == theirs


def test_thumos14_agrees_with_the_official_table(shared_data: Path, tmp_path: Path) -> None:
    report = convert(
        read_actions(shared_data / "thumos14_val_Annotation.csv", dialect="thumos14"),
        {"train": read_metadata(shared_data / "thumos14_valid_metadata.csv")},
        tmp_path,
    )
    # The videos' names give their split, whatever name their table came under.
    assert list(report.subsets) == ["valid"]
    ours = read_groundtruth(tmp_path / "valid_groundtruth.csv")
    official = read_groundtruth(shared_data / "thumos14_valid_tsp_groundtruth.csv")
    assert agreement(ours, official, "Action") == 1.0
    assert agreement(ours, official, "No action") >= 199 / 200
    theirs = json.loads((shared_data / "thumos14_action_label_mapping.json").read_text())
    assert json.loads((tmp_path / "action_label_mapping.json").read_text()) == theirs


def test_official_tables_survive_reading_and_writing(shared_data: Path, tmp_path: Path) -> None:
    official = shared_data / "activitynet_v1-3_valid_tsp_groundtruth.csv"
    copy = tmp_path / "copy.csv"
    write_groundtruth(copy, read_groundtruth(official))
    with open(official, newline="") as first, open(copy, newline="") as second:
        assert list(csv.reader(first)) == list(csv.reader(second))


def test_columns_are_the_official_ones() -> None:
    assert ",".join(GROUNDTRUTH_COLUMNS) == (
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label"
    )


actions_strategy = st.lists(
    st.tuples(st.floats(0, 90), st.floats(0, 40)).map(
        lambda pair: Segment(pair[0], pair[0] + pair[1], "x")
    ),
    max_size=8,
)


@given(actions=actions_strategy, duration_s=st.floats(1, 100), min_gap_s=st.floats(0.5, 6))
def test_union_background_is_what_actions_leave(
    actions: list[Segment], duration_s: float, min_gap_s: float
) -> None:
    gaps = background_segments(actions, duration_s, min_gap_s=min_gap_s)
    assert gaps == sorted(gaps)
    for start_s, end_s in gaps:
        last_s = max([duration_s] + [a.start_s for a in actions])
        assert start_s >= 0 and end_s <= last_s and end_s - start_s >= min_gap_s
        assert all(a.end_s <= start_s or a.start_s >= end_s for a in actions if a.end_s > a.start_s)
    # Any instant far enough from every action and from both ends lies in a gap.
    for instant in (duration_s * k / 50 for k in range(51)):
        left = max([0.0] + [a.end_s for a in actions if a.start_s <= instant])
        right = min([duration_s] + [a.start_s for a in actions if a.start_s > instant])
        if left < instant < right and right - left > min_gap_s:
            assert any(start_s <= instant <= end_s for start_s, end_s in gaps)


def test_rules_differ_for_nested_actions() -> None:
    nested = [Segment(10, 50, "long"), Segment(20, 25, "short")]
    both = {
        rule: background_segments(nested, 60.0, min_gap_s=1.0, rule=rule)
        for rule in get_args(GapRule)
    }
    assert both == {"union": [(0, 10), (50, 60)], "official": [(0, 10), (25, 60)]}


def entry(stem: str, duration_s: float = 60.0) -> VideoEntry:
    return VideoEntry(f"{stem}.mp4", duration_s, 30.0, round(duration_s * 30))


@pytest.mark.parametrize("subset", ["../escaped", "/escaped", "a\\b", "a\0b", "\n", "x" * 300])
def test_a_subset_cannot_leave_the_output_folder(tmp_path: Path, subset: str) -> None:
    if subset.startswith("/"):
        subset = f"{tmp_path}{subset}"
    annotations = Annotations(
        {"a": AnnotatedVideo((Segment(10, 20, "run"),), subset=subset)}, dialect="activitynet"
    )
    with refused(AnnotationError, value=subset):
        convert(annotations, {"all": [entry("a")]}, tmp_path / "out", min_gap_s=1.0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_convert_reports_what_it_leaves_out(tmp_path: Path) -> None:
    annotations = Annotations(
        {
            "a": AnnotatedVideo((Segment(10, 20, "run"),), subset="training"),
            "b": AnnotatedVideo(
                (Segment(0, 70, "jump"), Segment(200, 210, "jump")), subset="validation"
            ),
            "quiet": AnnotatedVideo(subset="training"),
            "gone": AnnotatedVideo((Segment(1, 2, "run"),), subset="training"),
        },
        dialect="activitynet",
    )
    videos = {"all": [entry("v_b"), entry("v_a"), entry("v_quiet"), entry("other")]}
    report = convert(annotations, videos, tmp_path, min_gap_s=1.0)
    train, valid = report.subsets["train"], report.subsets["valid"]
    assert (train.n_videos, train.n_actions, train.n_background) == (1, 1, 2)
    assert train.missing == ["gone"]
    assert train.unannotated == ["v_quiet.mp4"]
    # No table is made for videos of which the annotations know nothing.
    assert report.unlisted == ["other.mp4"]
    assert sorted(report.subsets) == ["train", "valid"]
    assert not list(tmp_path.glob("all_*"))
    assert (train.n_beyond, valid.n_beyond) == (0, 1)
    assert (train.n_outside, valid.n_outside) == (0, 1)
    rows = read_groundtruth(train.groundtruth)
    assert [(r.video_name, r.start_s, r.end_s, r.label) for r in rows] == [
        ("a", 10, 20, "run"),
        ("a", 0, 10, None),
        ("a", 20, 60, None),
    ]
    # An action may be annotated beyond the end; the row keeps what was annotated.
    kept = [(r.start_s, r.end_s) for r in read_groundtruth(valid.groundtruth) if r.label]
    assert kept == [(0, 70), (200, 210)]

    everything = tmp_path / "everything"
    report = convert(annotations, videos, everything, min_gap_s=1.0, include_unannotated=True)
    assert report.subsets["train"].n_background == 3


def test_convert_refuses_what_cannot_be_right(tmp_path: Path) -> None:
    annotations = Annotations({"a": AnnotatedVideo((Segment(1, 2, "run"),))})
    with refused(AnnotationError, video="b"):
        convert(annotations, {"train": [entry("b")]}, tmp_path)
    with refused(AnnotationError):
        convert(annotations, {"train": []}, tmp_path)
    backwards = Annotations({"a": AnnotatedVideo((Segment(3, 2, "run"),))})
    with refused(AnnotationError, video="a") as caught:
        convert(backwards, {"train": [entry("a")]}, tmp_path)
    assert "1 row" in str(caught.value)
    with refused(AnnotationError, value="run"):
        convert(annotations, {"t": [entry("a")]}, tmp_path, labels=["jump"])
    with refused(AnnotationError, video="a"):
        convert(annotations, {"train": [entry("a")], "valid": [entry("a")]}, tmp_path)
    for gap in (-1.0, float("nan"), float("inf")):
        with refused(UsageError, option="--min-gap"):
            convert(annotations, {"train": [entry("a")]}, tmp_path, min_gap_s=gap)


@pytest.mark.parametrize(
    ("dialect", "rule", "gaps"),
    [
        ("activitynet", "official", [(0, 10), (25, 60)]),
        ("bsn", "official", [(0, 10), (25, 60)]),
        ("thumos14", "union", [(0, 10), (50, 60)]),
        ("table", "union", [(0, 10), (50, 60)]),
        ("", "union", [(0, 10), (50, 60)]),
    ],
)
def test_gaps_are_those_of_the_dialect(
    tmp_path: Path, dialect: str, rule: str, gaps: list[tuple[float, float]]
) -> None:
    segments = (Segment(10, 50, "long"), Segment(20, 25, "short"))
    given = Annotations({"a": AnnotatedVideo(segments)}, dialect=dialect)
    report = convert(given, {"train": [entry("a")]}, tmp_path)
    assert report.gap_rule == rule
    assert report.min_gap_s == (16 / 3 if rule == "official" else 16 / 15)
    rows = read_groundtruth(tmp_path / "train_groundtruth.csv")
    assert [(r.start_s, r.end_s) for r in rows if r.label is None] == gaps


def test_a_video_whose_name_is_annotated_is_that_one(tmp_path: Path) -> None:
    """`v_x.mp4` is another video beside `x.mp4`, and what is annotated of that is not of it."""
    segment = Segment(1.0, 4.0, "run")
    annotations = Annotations({"x": AnnotatedVideo((segment,)), "y": AnnotatedVideo((segment,))})
    videos = [VideoEntry(f"{name}.mp4", 10.0, 30.0, 300) for name in ("v_x", "x", "v_y")]
    part = convert(annotations, {"train": videos}, tmp_path, min_gap_s=1.0).subsets["train"]
    actions = [row.filename for row in read_groundtruth(part.groundtruth) if row.label]
    assert actions == ["x.mp4", "v_y.mp4"]
    assert part.unannotated == ["v_x.mp4"]


@pytest.mark.parametrize("name", ["caf\u00e9", "\ud55c\uad6d", "v_\u30ac\u30e9\u30b9"])
def test_a_name_in_another_unicode_form_is_the_same(tmp_path: Path, name: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    for annotated, stem in ((composed, decomposed), (decomposed, composed)):
        given = Annotations({annotated: AnnotatedVideo((Segment(1, 4, "run"),))})
        part = convert(given, {"train": [entry(stem)]}, tmp_path, overwrite=True).subsets["train"]
        assert (part.n_actions, part.missing, part.unannotated) == (1, [], [])
