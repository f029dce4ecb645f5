"""Several files seen as one: what one lacks another supplies, and contradictions are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders.annotations import EXAMPLES, write, write_example
from tests.builders.refusals import refused
from tspcli.annotations import AnnotationOrigin, Annotations, read_actions, read_together
from tspcli.errors import AnnotationError


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_dialect_says_the_same(tmp_path: Path, name: str) -> None:
    found = read_together([write_example(tmp_path, name)])
    (video,) = found.videos.values()
    assert [name.removeprefix("v_") for name in found.videos] == ["abc"]
    (segment,) = video.segments
    assert (segment.start_s, segment.end_s, segment.label) == (1.0, 2.5, "Archery")
    silent = name in ("gtad.csv", "Archery_val.txt", "mine.tsv", "project.json")
    silent = silent or name.startswith("v_abc.")
    assert video.duration_s == (None if silent else 9.0)
    assert segment.frames == ((25, 62) if name == "gtad.csv" else None)
    if "train" in name:
        assert video.subset == "training"


def test_what_one_file_lacks_another_supplies(tmp_path: Path) -> None:
    actions = write_example(tmp_path, "anet_anno_action.json")
    info = write(
        tmp_path / "video_info_new.csv",
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_abc,270,9.0,30.0,30.0,testing,256\n",
    )
    (video,) = read_together([actions, info]).videos.values()
    assert video.subset == "testing" and video.fps == 30.0 and len(video.segments) == 1
    assert read_together([actions]).videos["v_abc"].subset is None
    assert read_together([actions], subset="val").videos["v_abc"].subset == "validation"


@pytest.mark.parametrize(
    "changed",
    [
        {"annotations": [{"segment": [1.0, 2.5], "label": "Zumba"}]},
        {"annotations": [{"segment": [1.0, 4.25], "label": "Archery"}]},
        {"annotations": [{"segment": [1.0, 2.5], "label": "Archery"}] * 2},
        {"subset": "testing", "annotations": []},
    ],
)
def test_contradictions_are_refused(tmp_path: Path, changed: dict) -> None:
    one = write_example(tmp_path, "anet.json")
    other = json.loads(one.read_text())
    other["database"]["abc"] |= changed
    two = write(tmp_path / "2.json", other)
    with refused(AnnotationError, path=two, video="abc"):
        _ = read_together([one, two]).videos


def test_times_may_be_rounded(tmp_path: Path) -> None:
    one = write_example(tmp_path, "anet.json")
    two = write(tmp_path / "2.json", one.read_text().replace("2.5", "2.51"))
    (video,) = read_together([one, two]).videos.values()
    assert video.segments[0].end_s == 2.5


def test_other_durations_are_noted(tmp_path: Path) -> None:
    one = write_example(tmp_path, "anet.json")
    table = "filename,video-duration\nv_abc.mp4,{}\n"
    near = write(tmp_path / "near_metadata.csv", table.format(9.4))
    found = read_together([one, near])
    assert found.videos["abc"].duration_s == 9.0 and not found.notes
    far = write(tmp_path / "far_metadata.csv", table.format(99))
    (note,) = read_together([one, far]).notes
    for shown in ("1 video", "'abc'", "9 s", "99 s", "far_metadata.csv"):
        assert shown in note
    assert read_together([one, far]).notes_on("abc") == [note]
    assert read_together([one, far]).notes_on("other") == []


def test_actions_are_taken_rather_than_captions(tmp_path: Path) -> None:
    captions = write(
        tmp_path / "val_1.json",
        {"v_abc": {"duration": 9.0, "timestamps": [[0, 1], [2, 3]], "sentences": ["x", "y"]}},
    )
    actions = write_example(tmp_path, "anet.json")
    for paths in ([captions, actions], [actions, captions]):
        (video,) = read_together(paths, subset="training").videos.values()
        assert [s.label for s in video.segments] == ["Archery"]


def test_unknown_subsets(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {"database": {"a": {"subset": "holdout"}}})
    with refused(AnnotationError, value="holdout"):
        read_together([path])
    with refused(AnnotationError, value="mine"):
        read_together([path], subset="mine")


def test_missing_files(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json", "none"):
        with refused(AnnotationError, path=tmp_path / name):
            read_together([tmp_path / name])


def test_names_of_several_files_meet_one_by_one(tmp_path: Path) -> None:
    one = write(tmp_path / "1.json", {"database": {n: {"duration": 9} for n in ("a", "odd", "b")}})
    info = "video,subset\nv_a,training\nodd,testing\nv_b,validation\n"
    two = write(tmp_path / "video_info_new.csv", info)
    found = read_together([one, two])
    assert {name: (v.subset, v.duration_s) for name, v in found.videos.items()} == {
        "a": ("training", 9),
        "odd": ("testing", 9),
        "b": ("validation", 9),
    }
    assert list(found.named(found.files[1])) == ["a", "odd", "b"]


@pytest.mark.parametrize("name", ["anet_anno_action.json", "mine.tsv", "Archery_val.txt"])
def test_an_origin_is_read_again_unless_it_has_changed(tmp_path: Path, name: str) -> None:
    path = write_example(tmp_path, name)
    file = path / name if path.is_dir() else path
    read = read_actions(path)
    origin = AnnotationOrigin.of(read)
    assert origin is not None and origin.read() == read
    assert AnnotationOrigin.of(read_actions(path)) == origin
    file.write_text(file.read_text() + "\n")
    with refused(AnnotationError, path=path):
        origin.read()
    file.unlink()
    with refused(AnnotationError, path=path):
        origin.read()


def test_a_file_added_to_a_folder_changes_it(tmp_path: Path) -> None:
    path = write_example(tmp_path, "Archery_val.txt")
    origin = AnnotationOrigin.of(read_actions(path))
    assert origin is not None
    (path / "Diving_val.txt").write_text("v_abc 3.0 4.0\n")
    with refused(AnnotationError, path=path):
        origin.read()


def test_an_origin_has_all_subsets(tmp_path: Path) -> None:
    content = {
        "database": {
            name: {"subset": name, "annotations": [{"segment": [1, 2], "label": "run"}]}
            for name in ("training", "validation")
        }
    }
    path = write(tmp_path / "all.json", json.dumps(content))
    origin = AnnotationOrigin.of(read_actions(path, "training"))
    assert origin is not None and set(origin.read()) == {"training", "validation"}


def test_what_was_read_from_no_file_has_no_origin(tmp_path: Path) -> None:
    assert AnnotationOrigin.of(Annotations()) is None
    read = read_actions(write_example(tmp_path, "mine.tsv"))
    (tmp_path / "mine.tsv").unlink()
    assert AnnotationOrigin.of(read) is None
