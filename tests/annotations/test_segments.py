"""Which videos are meant, by the source's own words or by the part they play; class names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.annotations import TWO_SUBSETS, write
from tests.builders.refusals import refused
from tspcli.annotations import (
    AnnotatedVideo,
    Annotations,
    Segment,
    read_actions,
    read_annotations,
    read_label_mapping,
    read_together,
    write_label_mapping,
)
from tspcli.annotations.dialects import Role
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
        (word,) = chosen.values()
        with refused(AnnotationError, path=path, value=word, known=["training", "validation"]):
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


@pytest.mark.parametrize(
    ("parts", "roles"),
    [
        (["train", "val"], ["training", "validation"]),
        (["val", "test"], ["training", "validation"]),
        (["train", "test"], ["training", "testing"]),
        (["train", "val", "test"], ["training", "validation", "testing"]),
    ],
)
def test_class_files_of_ones_own_videos_give_their_roles(
    tmp_path: Path, parts: list[str], roles: list[Role]
) -> None:
    """As THUMOS14's: without training files, the validation files are those to train on."""
    for part in parts:
        write(tmp_path / f"Jump_{part}.txt", f"of_{part} 1 2\n")
    names = [f"of_{part}" for part in parts]
    for role, name in zip(roles, names, strict=True):
        assert list(read_actions(tmp_path, role=role)) == [name]
    videos = read_together([tmp_path]).videos
    assert [videos[name].subset for name in names] == roles
    # A word that is given is the files' own.
    assert list(read_actions(tmp_path, parts[0])) == names[:1]
    for role in {"training", "validation", "testing"} - set(roles):
        with refused(AnnotationError, value=role):
            read_actions(tmp_path, role=role)


def test_a_file_without_subsets_is_one(tmp_path: Path) -> None:
    """A ground-truth table: a video of background alone is there, without actions."""
    path = write(
        tmp_path / "valid.csv",
        "video-name,t-start,t-end,action-label,video-duration,filename,fps,video-frames,"
        "temporal-region-label\n"
        "one,1.0,2.5,run,10.0,v_one.mp4,30.0,300,Action\n"
        "one,2.5,10.0,,10.0,v_one.mp4,30.0,300,No action\n"
        "two,0.0,20.0,,20.0,v_two.mp4,30.0,600,No action\n",
    )
    expected = {
        "one": AnnotatedVideo((Segment(1.0, 2.5, "run"),), 10.0),
        "two": AnnotatedVideo((), 20.0),
    }
    assert read_actions(path) == read_actions(path, "validation") == expected
    assert read_actions(path, role="training") == expected


def test_segments_that_are_left_out_are_counted() -> None:
    segments = (Segment(1, 2, "run"), Segment(3, 2, "run"), Segment(4, 4, "Ambiguous"))
    given = Annotations({"a": AnnotatedVideo(segments), "b": AnnotatedVideo(segments[:1])})
    assert given.forward().skipped == {"ends before it starts": 1}
    kept = given.classed().forward()
    assert kept == {name: AnnotatedVideo(segments[:1]) for name in ("a", "b")}
    assert kept.skipped == {"ends before it starts": 1, "Ambiguous": 1}
    assert not given.skipped


@pytest.mark.parametrize("content", ['["a", "b", "a"]', "[]", '{"class": "a"}', '["a", 1]', "{}"])
def test_label_mappings_that_do_not_fit(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "labels.json", content)
    with refused(AnnotationError, path=path):
        read_label_mapping(path)


def test_label_mappings_come_back(tmp_path: Path) -> None:
    write_label_mapping(tmp_path / "labels.json", ["run", "J\u00f8rn"])
    assert read_label_mapping(tmp_path / "labels.json") == ["run", "J\u00f8rn"]
    scores = write(tmp_path / "scores.json", {"class": ["b", "a"], "results": {}})
    assert read_label_mapping(scores) == ["b", "a"]
