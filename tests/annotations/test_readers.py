"""Readers take every layout that the data sets come in, and say where a file does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tspcli.annotations import (
    Annotations,
    Segment,
    read_activitynet,
    read_annotations,
    read_groundtruth,
    read_label_mapping,
    read_metadata,
    read_table,
    read_thumos14,
)
from tspcli.errors import AnnotationError

ENTRY = {"annotations": [{"segment": [1, 2.5], "label": "Archery"}]}


def actions(found: Annotations) -> dict[str, list[Segment]]:
    return {name: list(video.segments) for name, video in found.items()}


def subsets(found: Annotations) -> dict[str, str]:
    return {name: video.subset for name, video in found.items() if video.subset is not None}


def test_activitynet_release_layout_tells_subsets(tmp_path: Path) -> None:
    path = tmp_path / "anet.json"
    database = {
        "a": {"subset": "training", "duration": 9.0, **ENTRY},
        "b": {"subset": "validation", "annotations": []},
        "c": {"subset": "testing", "annotations": []},
    }
    path.write_text(json.dumps({"version": "1.3", "taxonomy": [], "database": database}))
    annotations = read_activitynet(path)
    assert actions(annotations) == {"a": [Segment(1.0, 2.5, "Archery")], "b": [], "c": []}
    assert subsets(annotations) == {"a": "training", "b": "validation", "c": "testing"}
    assert annotations["a"].duration_s == 9.0
    assert annotations.find("v_a") == "a"
    assert annotations.find("v_z") is None


def test_activitynet_bsn_layout(tmp_path: Path) -> None:
    path = tmp_path / "anet.json"
    path.write_text(json.dumps({"v_a": {"duration_second": 9.0, **ENTRY}}))
    annotations = read_activitynet(path)
    assert actions(annotations) == {"v_a": [Segment(1.0, 2.5, "Archery")]}
    assert subsets(annotations) == {}
    assert annotations.find("v_a") == annotations.find("a") == "v_a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no table"),
        ('{"v_x": {"annotations": [{"segment": [1], "label": "A"}]}}', "'v_x': .*no annotation"),
        ('{"v_x": {"annotations": []}, "v_y": {}}', "'v_y' has no 'annotations'"),
        ('{"v_x": {"segments": []}}', "no dialect"),
        ('{"database": {}}', "no video"),
        ("{}", "no dialect"),
        ('{"database": {"a": 3}}', "'a': 3 is no object"),
        ('{"database": {"a": {"annotations": [{"segment": [1, "x"], "label": "r"}]}}}',
         "'x' is no time"),
        ('{"database": {"a": {"duration": NaN}}}', "duration: nan is no finite number"),
    ],
)  # fmt: skip
def test_activitynet_that_does_not_fit(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "anet.json"
    path.write_text(text)
    for read in (read_activitynet, read_annotations):
        with pytest.raises(AnnotationError, match=said):
            read(path)


def test_captions_are_no_actions(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"v_a": {"duration": 9, "timestamps": [[0, 2]], "sentences": ["Hm."]}}')
    with pytest.raises(AnnotationError, match="captions, no actions"):
        read_activitynet(path)


def test_thumos_class_files(tmp_path: Path) -> None:
    (tmp_path / "Diving_val.txt").write_text(
        "video_validation_0000051  67.5 75.9\nvideo_validation_0000051 3 4.5\n\n"
    )
    (tmp_path / "Diving_test.txt").write_text("video_test_0000004  1.0 2.0 \n")
    (tmp_path / "Ambiguous_val.txt").write_text("video_validation_0000051  10 11\n")
    (tmp_path / "readme.txt").write_text("not a class file")
    annotations = read_thumos14(tmp_path)
    assert actions(annotations) == {
        "video_test_0000004": [Segment(1.0, 2.0, "Diving")],
        "video_validation_0000051": [
            Segment(67.5, 75.9, "Diving"),
            Segment(3.0, 4.5, "Diving"),
        ],
    }
    assert annotations.skipped == {"Ambiguous": 1}
    assert annotations.labels() == ["Diving"]
    assert set(subsets(annotations).values()) == {"valid", "test"}


def test_thumos_line_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "Diving_val.txt").write_text("video_validation_0000051 67.5 75.9\nvideo 3\n")
    with pytest.raises(AnnotationError, match=r"Diving_val\.txt, line 2"):
        read_thumos14(tmp_path)
    with pytest.raises(AnnotationError, match="per-class"):
        read_thumos14(tmp_path / "elsewhere")


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_tables(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "actions.csv"
    rows = [
        ["label", "Filename", "t-start", "t-end", "split"],
        ["run", "clips/a.mp4", "1.5", "1:02.5", "train"],
        ["", "clips/a.mp4", "70", "80", "train"],
        ["jump", "b.v2", "0", "1:00:00", ""],
    ]
    path.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8-sig")
    annotations = read_table(path)
    assert actions(annotations) == {
        "a": [Segment(1.5, 62.5, "run")],
        "b.v2": [Segment(0.0, 3600.0, "jump")],
    }
    assert subsets(annotations) == {"a": "train"}
    assert annotations.skipped == {"no label": 1}


def test_table_with_named_columns(tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("clip,a,b,what\nx,1,2,run\n")
    with pytest.raises(AnnotationError, match="--column video=NAME"):
        read_table(path)
    columns = {"video": "clip", "start": "a", "end": "b", "label": "what"}
    assert actions(read_table(path, columns=columns)) == {"x": [Segment(1.0, 2.0, "run")]}
    with pytest.raises(AnnotationError, match="no column 'zz'"):
        read_table(path, columns={**columns, "end": "zz"})


def test_table_time_that_is_none_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("video,start,end,label\nx,1,2,run\nx,1,soon,run\n")
    with pytest.raises(AnnotationError, match="line 3, end: 'soon'"):
        read_table(path)


def test_groundtruth_whose_two_labels_disagree(tmp_path: Path) -> None:
    path = tmp_path / "gt.csv"
    header = "video-name,t-start,t-end,action-label,video-duration,filename,temporal-region-label\n"
    path.write_text(header + "a,0,1,run,9,a.mp4,Action\na,2,3,run,9,a.mp4,No action\n")
    for read in (read_groundtruth, read_annotations):
        with pytest.raises(AnnotationError, match=r"line 3: the region is 'No action'.*'run'"):
            read(path)
    path.write_text(header + "a,0,nan,run,9,a.mp4,Action\n")
    with pytest.raises(AnnotationError, match="line 2, t-end: 'nan'"):
        read_groundtruth(path)


def test_metadata_and_label_mapping_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("filename,video-duration,fps\na.mp4,1,30\n")
    with pytest.raises(AnnotationError, match="video-frames"):
        read_metadata(path)
    path.write_text("filename,video-duration,fps,video-frames\na.mp4,0,30,0\n")
    with pytest.raises(AnnotationError, match="line 2"):
        read_metadata(path)
    path.write_text('["a", "b", "a"]')
    with pytest.raises(AnnotationError, match="'a' twice"):
        read_label_mapping(path)


def test_a_file_of_the_other_kind_is_told_its_command(tmp_path: Path) -> None:
    table, data = tmp_path / "t.csv", tmp_path / "a.json"
    table.write_text("video,start,end,label\na,1,2,run\n", encoding="utf-8")
    data.write_text('{"database": {}}', encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"t\.csv is no JSON.*annotations csv"):
        read_activitynet(table)
    with pytest.raises(
        AnnotationError, match=r"a\.json is JSON, no table.*annotations activitynet"
    ):
        read_table(data)


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("v_a.mp4", "v_a"),
        ("v_a.WMV", "v_a"),
        ("a.b.m2ts", "a.b"),
        ("take 1.2", "take 1.2"),
        (".mp4", ".mp4"),
    ],
)
def test_names_lose_endings_of_videos_and_no_others(
    tmp_path: Path, filename: str, name: str
) -> None:
    for content in (
        f"filename,video-duration\n{filename},9\n",
        f"video,start,end,label\n{filename},1,2,run\n",
    ):
        path = tmp_path / "t.csv"
        path.write_text(content)
        assert list(read_annotations(path)) == [name]


def test_subsets_of_thumos14_are_told_by_its_own_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "thumos.csv"
    path.write_text(
        "video,start,end,label,subset\nvideo_test_0000004,1,2,Diving,x\n"
        "video_validation_0000051,1,2,Diving,\ncontest_1,1,2,Diving,train\n"
    )
    told = {name: video.subset for name, video in read_thumos14(path).items()}
    assert told == {
        "video_test_0000004": "test",
        "video_validation_0000051": "valid",
        "contest_1": "train",
    }


def test_a_row_may_end_before_its_label(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("video,start,end,label\na,1,2,run\na,3,4\n", encoding="utf-8")
    found = read_table(table)
    assert [segment.label for segment in found["a"].segments] == ["run"]
    assert found.skipped == {"no label": 1}
