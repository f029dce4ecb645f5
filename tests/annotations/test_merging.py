"""Several files seen as one: what one lacks another tells, and what they contradict is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.annotations.dialects import DIALECTS, write, write_dialect
from tspcli.annotations import read_together, shared_prefix
from tspcli.errors import AnnotationError


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_dialect_says_the_same(tmp_path: Path, name: str) -> None:
    found = read_together([write_dialect(tmp_path, name)])
    (video,) = found.videos.values()
    assert list(found.videos) == ["abc"]
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
    assert read_together([actions]).videos["abc"].subset is None
    assert read_together([actions], subset="val").videos["abc"].subset == "validation"


def test_contradictions_are_named(tmp_path: Path) -> None:
    one = write(tmp_path / "1.json", DIALECTS["anet.json"])
    other = json.loads(json.dumps(DIALECTS["anet.json"]))
    other["database"]["abc"]["annotations"][0]["label"] = "Zumba"
    two = write(tmp_path / "2.json", other)
    with pytest.raises(AnnotationError, match=r"2\.json annotates 'abc' otherwise"):
        _ = read_together([one, two]).videos
    other["database"]["abc"] = {"subset": "testing", "duration": 9.0, "annotations": []}
    two = write(tmp_path / "2.json", other)
    with pytest.raises(AnnotationError, match=r"testing.*training"):
        _ = read_together([one, two]).videos


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
    ],
)
def test_damaged_files(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        read_together([write(tmp_path / "x.json", content)])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no annotation file .*none\.json"):
        read_together([tmp_path / "none.json"])


def test_an_id_may_begin_with_the_prefix() -> None:
    assert shared_prefix(["v_a", "v_b"]) == "v_"
    assert shared_prefix(["v_a", "b"]) == "" and shared_prefix([]) == ""
