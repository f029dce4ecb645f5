"""Several files seen as one: what one lacks another tells, and what they contradict is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.annotations.dialects import DIALECTS, write, write_dialect
from tspcli.annotations import pair_names, read_together
from tspcli.errors import AnnotationError


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_dialect_says_the_same(tmp_path: Path, name: str) -> None:
    found = read_together([write_dialect(tmp_path, name)])
    (video,) = found.videos.values()
    assert [name.removeprefix("v_") for name in found.videos] == ["abc"]
    (segment,) = video.segments
    assert (segment.start_s, segment.end_s, segment.label) == (1.0, 2.5, "Archery")
    silent = name in ("gtad.csv", "Archery_val.txt", "mine.tsv")
    assert video.duration_s == (None if silent else 9.0)
    assert segment.frames == ((25, 62) if name == "gtad.csv" else None)
    if "train" in name:
        assert video.subset == "training"


def test_what_one_file_lacks_another_tells(tmp_path: Path) -> None:
    actions = write(tmp_path / "anet_anno_action.json", DIALECTS["anet_anno_action.json"])
    info = write(
        tmp_path / "video_info_new.csv",
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_abc,270,9.0,30.0,30.0,testing,256\n",
    )
    (video,) = read_together([actions, info]).videos.values()
    assert video.subset == "testing" and video.fps == 30.0 and len(video.segments) == 1
    assert read_together([actions]).videos["v_abc"].subset is None
    assert read_together([actions], subset="val").videos["v_abc"].subset == "validation"


def test_contradictions_are_named(tmp_path: Path) -> None:
    one = write(tmp_path / "1.json", DIALECTS["anet.json"])
    other = json.loads(json.dumps(DIALECTS["anet.json"]))
    other["database"]["abc"]["annotations"][0]["label"] = "Zumba"
    two = write(tmp_path / "2.json", other)
    with pytest.raises(AnnotationError, match=r"2\.json annotates 'abc' otherwise than .*1\.json"):
        _ = read_together([one, two]).videos
    other = json.loads(json.dumps(DIALECTS["anet.json"]))
    other["database"]["abc"]["annotations"][0]["segment"] = [1.0, 4.25]
    two = write(tmp_path / "2.json", other)
    with pytest.raises(AnnotationError, match=r"from 1 to 4\.25 s, not 'Archery' from 1 to 2\.5 s"):
        _ = read_together([one, two]).videos
    other["database"]["abc"]["annotations"][0]["segment"] = [1.0, 2.51]  # rounded otherwise
    (video,) = read_together([one, write(tmp_path / "2.json", other)]).videos.values()
    assert video.segments[0].end_s == 2.5
    other["database"]["abc"]["annotations"] *= 2
    with pytest.raises(AnnotationError, match=r"2 actions, not 1"):
        _ = read_together([one, write(tmp_path / "2.json", other)]).videos
    other["database"]["abc"] = {"subset": "testing", "duration": 9.0, "annotations": []}
    two = write(tmp_path / "2.json", other)
    with pytest.raises(AnnotationError, match=r"testing.*training"):
        _ = read_together([one, two]).videos


def test_other_durations_are_told(tmp_path: Path) -> None:
    one = write(tmp_path / "1.json", DIALECTS["anet.json"])
    table = "filename,video-duration\nv_abc.mp4,{}\n"
    near = write(tmp_path / "near_metadata.csv", table.format(9.4))
    found = read_together([one, near])
    assert found.videos["abc"].duration_s == 9.0 and not found.notes
    far = write(tmp_path / "far_metadata.csv", table.format(99))
    (note,) = read_together([one, far]).notes
    assert "1 video" in note and "'abc': 9 s" in note and "far_metadata.csv 99 s" in note
    assert read_together([one, far]).notes_on("abc") == [note]
    assert read_together([one, far]).notes_on("other") == []


def test_actions_are_taken_beside_captions(tmp_path: Path) -> None:
    captions = write(
        tmp_path / "val_1.json",
        {"v_abc": {"duration": 9.0, "timestamps": [[0, 1], [2, 3]], "sentences": ["x", "y"]}},
    )
    actions = write(tmp_path / "anet.json", DIALECTS["anet.json"])
    for paths in ([captions, actions], [actions, captions]):
        (video,) = read_together(paths, subset="training").videos.values()
        assert [s.label for s in video.segments] == ["Archery"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no dialect"),
        ("a,b\n1,2\n", "no dialect"),
        ("[1, 2]", "no table of videos"),
        ('{"database": {"a": {"subset": "holdout"}}}', "'holdout' is no subset"),
        ('{"database": {"a": {"annotations": [{"segment": [1]}]}}}', "'a': .*no annotation"),
        ('{"database": ', "cannot be read as JSON"),
        ("filename,video-duration\nx.mp4,long\n", "line 2, video-duration: 'long'"),
        ("video,subset\na,training\na,training\n", "twice"),
        ('{"database": {"a": {"duration": -5}}}', "'a' has -5 seconds"),
        ('{"v_a": {"annotations": [], "duration_frame": -9}}', "'v_a' has -9 frames"),
    ],
)
def test_damaged_files(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        read_together([write(tmp_path / "x.json", content)])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no annotation file .*none\.json"):
        read_together([tmp_path / "none.json"])


def test_names_are_paired_one_by_one() -> None:
    assert pair_names(["v_a", "b", "odd"], {"a", "v_b", "odd"}) == {
        "v_a": "a",
        "b": "v_b",
        "odd": "odd",
    }
    # An ID may begin with the prefix, and no name is taken from the one that is equal to it.
    assert pair_names(["v_v_a", "v_b", "b"], {"v_a", "b"}) == {"v_v_a": "v_a", "b": "b"}
    assert pair_names(["v_"], {""}) == {}


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
