"""Editing a file of annotations: the edits are in it, and everything else is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.refusals import refused
from tspcli.annotations import read_annotations
from tspcli.annotations.editing import ChangedMeanwhileError, EditedSegment, open_for_editing
from tspcli.errors import AnnotationError, UsageError


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


ROWS = 'video,start,end,label,note\nb.mp4,3,4.5,run,"one, two"\na,1,2,jump,\na,7,9,run,x\n'


def test_a_table_keeps_its_lines_columns_and_order(tmp_path: Path):
    path = written(tmp_path / "a.csv", ROWS)
    file = open_for_editing(path)
    jump, run = file.segments["a"]
    file.save({"a": [jump._replace(end_s=2.75), run, EditedSegment(10.0, 11.1234, "spin")]})
    assert path.read_text() == (
        'video,start,end,label,note\nb.mp4,3,4.5,run,"one, two"\n'
        "a,1,2.75,jump,\na,7,9,run,x\na,10,11.123,spin,\n"
    )
    assert (tmp_path / "a.csv.bak").read_text() == ROWS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Windows line ends, a byte order mark, semicolons.
        ("\ufeffvideo;start;end;label\r\na;1;2;jump\r\n",
         "\ufeffvideo;start;end;label\r\na;1;5;jump\r\n"),
        # Clock times stay clock times.
        ("video\tstart\tend\tlabel\na\t0:01\t0:02.5\tjump\n",
         "video\tstart\tend\tlabel\na\t0:01\t0:05\tjump\n"),
        ("video,start,end,label\na,0:00:01,0:01:02,jump\n",
         "video,start,end,label\na,0:00:01,0:00:05,jump\n"),
        # A field over two lines, an empty line, no line end at the end.
        ('video,start,end,label,note\na,1,2,jump,"x\ny"\n\nb,1,2,run,',
         'video,start,end,label,note\na,1,5,jump,"x\ny"\n\nb,1,2,run,\n'),
        # Frames follow their times at the rate that they had.
        ("video,type,type_idx,start,end,startFrame,endFrame\na,jump,7,1,2,30,60\n",
         "video,type,type_idx,start,end,startFrame,endFrame\na,jump,7,1,5,30,150\n"),
        # What other programs take for the end of a line is part of a field.
        ("video,start,end,label,note\na,1,2,jump,x\u2028y\n",
         "video,start,end,label,note\na,1,5,jump,x\u2028y\n"),
        # Times that are not edited keep their digits.
        ("video,start,end,label\na,1.00,2.123456,jump\n", "video,start,end,label\na,1.00,5,jump\n"),
    ],
)  # fmt: skip
def test_tables_of_every_kind(tmp_path: Path, before: str, after: str):
    path = written(tmp_path / "a.csv", before)
    file = open_for_editing(path)
    (jump,) = file.segments["a"]
    file.save({"a": [jump._replace(end_s=5.0)]})
    assert path.read_bytes().decode() == after


def test_official_tables_keep_their_background_and_number_their_labels(tmp_path: Path):
    header = "filename,fps,video-duration,t-start,t-end,temporal-region-label,action-label\n"
    path = written(
        tmp_path / "a.csv",
        header + "v_a.mp4,30.0,60.0,1,2,Action,jump\nv_a.mp4,30.0,60.0,2,60,No action,\n",
    )
    file = open_for_editing(path)
    file.save({"v_a": [*file.segments["v_a"], EditedSegment(5, 6, "run")]})
    assert path.read_text() == (
        header + "v_a.mp4,30.0,60.0,1,2,Action,jump\nv_a.mp4,30.0,60.0,2,60,No action,\n"
        "v_a.mp4,30.0,60.0,5,6,Action,run\n"
    )


def test_a_relabelled_segment_takes_the_number_of_its_new_label(tmp_path: Path):
    path = written(tmp_path / "a.csv", "video,type,type_idx,start,end\na,jump,7,1,2\nb,run,9,1,2\n")
    file = open_for_editing(path)
    (jump,) = file.segments["a"]
    file.save({"a": [jump._replace(label="run"), EditedSegment(3, 4, "new")]})
    assert path.read_text().splitlines()[1:3] == ["a,run,9,1,2", "a,new,,3,4"]


DATABASE = {
    "version": "1.3",
    "taxonomy": [{"nodeName": "é"}],
    "database": {
        "b": {"subset": "training", "duration": 9.5, "url": "x", "annotations": []},
        "a": {
            "subset": "training",
            "annotations": [
                {"segment": [1, 2.5], "label": "jump", "label_id": 3, "by": "me"},
                {"label": "run", "segment": [4.125, 6], "label_id": 5},
            ],
        },
    },
}


@pytest.mark.parametrize(
    "layout",
    [{}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": False}],
)
def test_json_keeps_fields_order_and_layout(tmp_path: Path, layout: dict[str, Any]):
    path = written(tmp_path / "a.json", json.dumps(DATABASE, **layout))
    file = open_for_editing(path)
    jump, run = file.segments["a"]
    file.save({"a": [jump._replace(label="run"), EditedSegment(2.0, 3.0004, "jump"), run]})
    expected = json.loads(json.dumps(DATABASE))
    expected["database"]["a"]["annotations"] = [
        {"segment": [1, 2.5], "label": "run", "by": "me", "label_id": 5},
        {"segment": [2.0, 3.0], "label": "jump", "label_id": 3},
        {"label": "run", "segment": [4.125, 6], "label_id": 5},
    ]
    assert json.loads(path.read_text()) == expected
    assert list(json.loads(path.read_text())["database"]) == ["b", "a"]
    assert path.read_text() == json.dumps(json.loads(path.read_text()), **layout)


times = st.integers(0, 100_000).map(lambda n: n / 1000)
segments = st.lists(
    st.tuples(times, times, st.sampled_from(["jump", "run", 'a "b", c', " é"])).filter(
        lambda s: s[0] < s[1]
    ),
    max_size=5,
)


@given(kept=st.sets(st.integers(0, 1)), new=segments, ending=st.sampled_from(["csv", "json"]))
def test_what_is_saved_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, kept: set[int], new: list, ending: str
):
    folder = tmp_path_factory.mktemp("edits")
    text = ROWS if ending == "csv" else json.dumps(DATABASE)
    file = open_for_editing(written(folder / f"a.{ending}", text))
    wanted = [file.segments["a"][n] for n in kept] + [
        EditedSegment(start, end, label.strip()) for start, end, label in new
    ]
    saved = file.save({"a": wanted})
    assert sorted(s[:3] for s in saved.segments.get("a", [])) == sorted(s[:3] for s in wanted)
    assert saved.segments["b"] == file.segments["b"]
    read = read_annotations(file.path)
    found = read["a"].segments if "a" in read else ()
    assert sorted(s[:3] for s in found) == sorted(s[:3] for s in wanted)


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_file_that_changed_is_not_overwritten(tmp_path: Path, ending: str):
    path = written(tmp_path / f"a.{ending}", ROWS if ending == "csv" else json.dumps(DATABASE))
    file = open_for_editing(path)
    theirs = path.read_text().replace("jump", "leap")
    path.write_text(theirs)
    with pytest.raises(ChangedMeanwhileError) as caught:
        file.save({"a": []})
    assert path.read_text() == theirs
    assert caught.value.current.segments["a"][0].label == "leap"
    # One that has vanished has changed, too.
    path.unlink()
    with pytest.raises(ChangedMeanwhileError):
        file.save({"a": []})
    assert not path.exists()


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_new_file_begins_with_the_first_save(tmp_path: Path, ending: str):
    path = tmp_path / f"new.{ending}"
    file = open_for_editing(path).save({"v": [EditedSegment(1, 2.5, "jump")]})
    assert read_annotations(path)["v"].segments[0][:3] == (1, 2.5, "jump")
    assert not (tmp_path / f"new.{ending}.bak").exists()
    assert not file.save({"v": []}).segments.get("v")


@pytest.mark.parametrize(
    "segment",
    [
        EditedSegment(2, 1, "x"),
        EditedSegment(1, 1, "x"),
        EditedSegment(-1, 1, "x"),
        EditedSegment(0, float("nan"), "x"),
        EditedSegment(0, float("inf"), "x"),
        EditedSegment(0, 1, ""),
        EditedSegment(0, 1, "a\nb"),
    ],
)
def test_what_is_no_segment_is_refused(tmp_path: Path, segment: EditedSegment):
    path = written(tmp_path / "a.csv", ROWS)
    with refused(AnnotationError, path=path, video="a"):
        open_for_editing(path).save({"a": [segment]})
    assert path.read_text() == ROWS


@pytest.mark.parametrize(
    "text",
    ['{"v_a": {"timestamps": [[1, 2]], "sentences": ["x"], "duration": 3}}', "a,b\n1,2\n", ""],
)
def test_other_dialects_cannot_be_edited(tmp_path: Path, text: str):
    path = written(tmp_path / "a.txt", text)
    with refused(AnnotationError, path=path):
        open_for_editing(path)
    assert path.read_text() == text


def test_a_new_table_has_the_columns_that_are_named(tmp_path: Path):
    columns = {"video": "clip, file", "end": "until"}
    file = open_for_editing(tmp_path / "new.csv", columns)
    saved = file.save({"v": [EditedSegment(1, 2.5, "jump")]})
    text = saved.path.read_text(encoding="utf-8")
    assert text == '"clip, file",start,until,label\nv,1,2.5,jump\n'
    assert list(saved.segments) == ["v"]
    with refused(AnnotationError, value="foo"):
        open_for_editing(saved.path, columns | {"foo": "start"})
    json_file = written(tmp_path / "a.json", '{"database": {}}')
    with refused(UsageError, option="--column"):
        open_for_editing(json_file, columns)


def test_entries_of_other_videos_stay_valid_after_a_save(tmp_path: Path):
    """A page keeps what it knows of a video while others are saved."""
    path = written(tmp_path / "a.csv", "video,start,end,label\na,1,2,x\nb,3,4,y\nb,5,6,z\n")
    first = open_for_editing(path)
    _, z = first.segments["b"]
    second = first.save({"a": [*first.segments["a"], EditedSegment(7, 8, "new")]})
    second.save({"b": [z._replace(end_s=6.5)]})
    assert path.read_text().splitlines()[1:] == ["a,1,2,x", "a,7,8,new", "b,5,6.5,z"]


def test_a_new_line_takes_over_what_is_the_video_s_and_no_more(tmp_path: Path):
    header = "video,id,start,end,label,subset,comment,score\n"
    path = written(tmp_path / "a.csv", header + "a,17,1,2,x,train,checked,0.9\n")
    file = open_for_editing(path)
    file.save({"a": [*file.segments["a"], EditedSegment(5, 6, "y")]})
    assert path.read_text().splitlines()[2] == "a,,5,6,y,train,,"


def test_permissions_links_and_the_previous_version_stay(tmp_path: Path):
    path = written(tmp_path / "real.csv", ROWS)
    path.chmod(0o600)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    file = open_for_editing(link)
    file = file.save({"a": []})
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    backup = tmp_path / "real.csv.bak"
    assert backup.read_text() == ROWS
    assert backup.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AnnotationError):
        file.save({"a": [EditedSegment(2, 1, "x")]})
    assert backup.read_text() == ROWS


def test_odd_segments_of_the_file_do_not_keep_it_from_being_saved(tmp_path: Path):
    path = written(tmp_path / "a.csv", "video,start,end,label\na,2,2,x\n")
    file = open_for_editing(path)
    file.save({"a": [*file.segments["a"], EditedSegment(5, 6, "y")]})
    assert path.read_text().splitlines()[1:] == ["a,2,2,x", "a,5,6,y"]


@pytest.mark.parametrize(
    "entry", [{"segment": [1, 2]}, {"label": "x"}, 7, {"segment": 3, "label": "x"}]
)
def test_json_that_is_no_annotation_is_named(tmp_path: Path, entry: object):
    text = json.dumps({"database": {"a": {"annotations": [entry]}}})
    with pytest.raises(AnnotationError) as caught:
        open_for_editing(written(tmp_path / "a.json", text))
    assert caught.value.data["video"] == "a"
