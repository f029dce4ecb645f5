"""Which videos of some annotations are meant: by the file's words, or by the part they play."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.annotations.dialects import TWO_SUBSETS, write
from tspcli.annotations import (
    AnnotatedVideo,
    Annotations,
    Segment,
    read_actions,
    read_annotations,
)
from tspcli.annotations.write import write_activitynet
from tspcli.errors import AnnotationError

THUMOS14 = """{"database": {
    "video_validation_0000001": {"subset": "Validation", "annotations": []},
    "video_test_0000001": {"subset": "Test", "annotations": []}}}"""


def test_activitynet_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_activitynet(path, TWO_SUBSETS)
    assert read_annotations(path) == TWO_SUBSETS
    assert list(read_actions(path, "training")) == ["three"]
    assert list(read_actions(path, role="training")) == ["three"]
    assert list(read_actions(path, "val")) == ["one", "two"]
    assert TWO_SUBSETS.labels() == ["jump", "run"]
    for chosen in ({"subset": "test"}, {"role": "testing"}):
        with pytest.raises(AnnotationError, match=r"'test.*training, validation"):
            read_actions(path, **chosen)


def test_names_meet_with_and_without_prefix() -> None:
    named = Annotations(
        {"abc": TWO_SUBSETS["one"], "v_xyz": TWO_SUBSETS["two"], "v_v_q": TWO_SUBSETS["two"]}
    )
    assert named.find("v_abc") == "abc"
    assert named.find("xyz") == "v_xyz"
    assert named.find("v_q") == "v_v_q"
    assert named.find("other") is None


def test_thumos14_is_trained_on_what_it_calls_validation(tmp_path: Path) -> None:
    path = write(tmp_path / "thumos14.json", THUMOS14)
    assert list(read_actions(path, role="training")) == ["video_validation_0000001"]
    assert list(read_actions(path, role="validation")) == ["video_test_0000001"]
    # A word that is given is the file's own.
    assert list(read_actions(path, "validation")) == ["video_validation_0000001"]
    assert list(read_actions(path, "test")) == ["video_test_0000001"]


def test_class_files_tell_subsets_and_leave_out_the_ambiguous(tmp_path: Path) -> None:
    write(tmp_path / "Dive_val.txt", "video_validation_0000001 1 2\n")
    write(tmp_path / "Dive_test.txt", "video_test_0000001 3 4\n")
    write(tmp_path / "Ambiguous_test.txt", "video_test_0000001 5 6\n")
    assert list(read_actions(tmp_path, role="training")) == ["video_validation_0000001"]
    found = read_actions(tmp_path, role="validation")
    assert found["video_test_0000001"].segments == (Segment(3.0, 4.0, "Dive"),)
    assert found.skipped == {"Ambiguous": 1}
    whole = read_annotations(tmp_path)
    assert whole.labels() == ["Ambiguous", "Dive"]


def test_a_file_without_subsets_is_one(tmp_path: Path) -> None:
    """A ground-truth table: background is no action, but a video of background alone is there."""
    path = tmp_path / "valid.csv"
    path.write_text(
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label\n"
        "one,1.0,2.5,run,10.0,v_one.mp4,30.0,300,Action\n"
        "one,2.5,10.0,,10.0,v_one.mp4,30.0,300,No action\n"
        "two,0.0,20.0,,20.0,v_two.mp4,30.0,600,No action\n"
    )
    expected = {
        "one": AnnotatedVideo((Segment(1.0, 2.5, "run"),), 10.0),
        "two": AnnotatedVideo((), 20.0),
    }
    assert read_actions(path) == read_actions(path, "validation") == expected
    assert read_actions(path, role="training") == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("filename,video-duration\na.mp4,10\n", "metadata, no actions"),
        ("video-name,t-start,t-end,action-label\none,x,2,run\n", "line 2, t-start: 'x' is no time"),
        ("video-name,t-start,t-end,action-label\n,1,2,run\n", "line 2: no video name"),
        ("video-name,t-start,t-end,action-label\na,1\n", "line 2: the row ends before .* 't-end'"),
        ("video-name,t-start,t-end,action-label\na,1,,run\n", "line 2, t-end: '' is no time"),
        ("video-name,t-start,t-end,action-label\n", "no rows"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(AnnotationError, match=said):
        read_actions(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(AnnotationError, match=name):
            read_actions(tmp_path / name)
