"""Annotations of other programs: ELAN's documents, SubRip and WebVTT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.refusals import refused
from tspcli.annotations import AnnotatedVideo, Annotations, Segment, read_annotations
from tspcli.annotations.write import write_as
from tspcli.cli.annotations import command
from tspcli.errors import AnnotationError, UsageError

# As ELAN 6 writes it: two tiers, a dependent one, a time slot without a time.
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-05-02T10:11:12+01:00" FORMAT="3.0" VERSION="3.0" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
    <LICENSE LICENSE_URL=""/>
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/my%20rat.mp4" MIME_TYPE="video/mp4" \
RELATIVE_MEDIA_URL="./my%20rat.mp4"/>
        <PROPERTY NAME="lastUsedAnnotationId">4</PROPERTY>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="780"/>
        <TIME_SLOT TIME_SLOT_ID="ts2"/>
        <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="1780"/>
        <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2500"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="behaviour">
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
                <ANNOTATION_VALUE>groom &amp; lick</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
                <ANNOTATION_VALUE>rear</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="sniffing">
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts4">
                <ANNOTATION_VALUE></ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="note" PARENT_REF="behaviour" TIER_ID="note">
        <ANNOTATION>
            <REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
                <ANNOTATION_VALUE>unsure</ANNOTATION_VALUE>
            </REF_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" \
TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""
SUBRIP = """1
00:00:01,000 --> 00:00:02,500
He jumps
over the fence.

2
01:00:03,250 --> 01:00:04,000  X1:40 X2:600 Y1:20 Y2:50
<i>She runs</i> -- fast
"""
WEBVTT = """WEBVTT - made by hand

NOTE
one comment

STYLE
::cue { color: red }

first
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>He &amp; she <b>jump</b></v>

01:00:03.250 --> 01:00:04.000
run
"""


# As VIA 3.0.11 saves it: two files, a choice, boxes, words, a moment and a region.
VIA: dict[str, Any] = {
    "project": {
        "pid": "__VIA_PROJECT_ID__",
        "rev": "__VIA_PROJECT_REV_ID__",
        "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
        "pname": "rats",
        "creator": "VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
        "created": 1642086744960,
        "vid_list": ["1", "2"],
    },
    "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}, "ui": {}},
    "attribute": {
        "1": {"aname": "behaviour", "anchor_id": "FILE1_Z2_XY0", "type": 4, "desc": "",
              "options": {"0": "rear", "1": "groom"}, "default_option_id": ""},
        "2": {"aname": "who", "anchor_id": "FILE1_Z2_XY0", "type": 2, "desc": "",
              "options": {"a": "left", "b": "right"}, "default_option_id": ""},
        "3": {"aname": "note", "anchor_id": "FILE1_Z2_XY0", "type": 1, "desc": "",
              "options": {}, "default_option_id": ""},
    },
    "file": {
        "1": {"fid": "1", "fname": "rat one.mp4", "type": 4, "loc": 1, "src": ""},
        "2": {"fid": "2", "fname": "https://lab.example/rat2.mp4", "type": 4, "loc": 2,
              "src": "https://lab.example/rat2.mp4"},
    },
    "metadata": {
        "1_b": {"vid": "1", "flg": 0, "z": [5.5, 7], "xy": [], "av": {"1": "1", "2": "a,b"}},
        "1_a": {"vid": "1", "flg": 0, "z": [1.25, 2], "xy": [], "av": {"1": "0"}},
        "1_c": {"vid": "1", "flg": 0, "z": [8, 9], "xy": [], "av": {"3": "odd"}},
        "1_d": {"vid": "1", "flg": 0, "z": [3], "xy": [2, 10, 10, 50, 50], "av": {"1": "0"}},
        "1_e": {"vid": "1", "flg": 0, "z": [10, 11], "xy": [], "av": {}},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
}  # fmt: skip


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_elan_s_tiers_and_times(tmp_path: Path):
    found = read_annotations(written(tmp_path / "session.eaf", ELAN))
    assert found.dialect == "elan"
    assert dict(found) == {
        "my rat": AnnotatedVideo(
            (
                Segment(0.78, 1.28, "groom & lick"),
                Segment(0.78, 2.5, "sniffing"),
                Segment(1.28, 1.78, "rear"),
            )
        )
    }
    assert found.skipped == {"refers to another annotation": 1}


def test_via_s_attributes(tmp_path: Path):
    found = read_annotations(written(tmp_path / "project.json", json.dumps(VIA)))
    assert found.dialect == "via"
    assert found["rat one"].segments == (
        Segment(1.25, 2.0, "rear"),
        Segment(5.5, 7.0, "groom, left, right"),
        Segment(8.0, 9.0, "odd"),
    )
    assert found["rat2"].segments == ()
    assert found.skipped == {"a region or a single moment": 1, "no label": 1}


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ({"metadata": {"x": {"vid": "9", "z": [1, 2], "av": {"1": "0"}}}}, {"value": "9"}),
        ({"metadata": {"x": {"vid": "1", "z": [1, "2_0"], "av": {"1": "0"}}}}, {"value": "2_0"}),
        ({"file": {"1": {"fid": "1", "fname": ""}}}, {}),
        ({"file": {}, "metadata": {}}, {}),
    ],
)
def test_a_project_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], data: dict[str, object]
):
    path = written(tmp_path / "project.json", json.dumps(VIA | change))
    with refused(AnnotationError, path=path, **data):
        read_annotations(path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_subrip(tmp_path: Path, line_end: str):
    path = written(tmp_path / "film.srt", "\ufeff" + SUBRIP.replace("\n", line_end))
    found = read_annotations(path)
    assert found.dialect == "subrip"
    assert found["film"].segments == (
        Segment(1.0, 2.5, "He jumps over the fence."),
        Segment(3603.25, 3604.0, "<i>She runs</i> -- fast"),
    )


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_webvtt(tmp_path: Path, line_end: str):
    found = read_annotations(written(tmp_path / "film.vtt", WEBVTT.replace("\n", line_end)))
    assert found.dialect == "webvtt"
    assert found["film"].segments == (
        Segment(1.0, 2.5, "He & she jump"),
        Segment(3603.25, 3604.0, "run"),
    )


@pytest.mark.parametrize(("name", "text"), [("a.eaf", ELAN), ("a.srt", SUBRIP), ("a.vtt", WEBVTT)])
def test_a_folder_has_a_file_per_video(tmp_path: Path, name: str, text: str):
    written(tmp_path / name, text.replace("my%20rat", "first"))
    written(tmp_path / name.replace("a.", "b."), text.replace("my%20rat", "second"))
    written(tmp_path / "notes.md", "something else")
    assert len(read_annotations(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "text", "data"),
    [
        ("a.eaf", ELAN.replace("</TIME_ORDER>", ""), {}),
        ("a.eaf", ELAN.replace('"1780"', '"1.78"'), {"value": "1.78"}),
        ("a.eaf", ELAN.replace('REF2="ts4"', 'REF2="ts9"'), {"field": "a3", "video": "my rat"}),
        ("a.eaf", ELAN.replace("<ANNOTATION_DOCUMENT",
                               "<!DOCTYPE x [<!ENTITY y 'z'>]><ANNOTATION_DOCUMENT", 1), {}),
        ("a.srt", SUBRIP.replace("01:00:03,250", "later"), {"line": 7}),
        ("a.srt", SUBRIP.replace("01:00:03,250", "01:70:03,250"), {"line": 7}),
        ("a.srt", SUBRIP.replace("He jumps\nover the fence.\n", ""), {"line": 2}),
        ("a.vtt", WEBVTT.replace("00:01.000", "-1.000"), {"line": 10}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, name: str, text: str, data: dict[str, object]
):
    path = written(tmp_path / name, text)
    with refused(AnnotationError, path=path, **data):
        read_annotations(path)


times = st.integers(0, 40_000_000).map(lambda n: n / 1000)
labels = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs"), exclude_characters="\ufeff"),
    min_size=1, max_size=12,
).filter(lambda text: "-->" not in text)  # fmt: skip
segments = st.lists(
    st.tuples(times, times, labels).filter(lambda s: s[0] < s[1]), min_size=1, max_size=6
)


@given(own=segments, dialect=st.sampled_from(["elan", "subrip", "webvtt", "table", "activitynet"]))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, own: list, dialect: str
):
    folder = tmp_path_factory.mktemp("written")
    out = folder / "out" if dialect in ("elan", "subrip", "webvtt") else folder / "out.txt"
    given_ = Annotations({"v_é 1": AnnotatedVideo(tuple(Segment(*s) for s in own))})
    write_as(given_, dialect, out)
    found = read_annotations(out)
    assert found.dialect == dialect
    assert sorted(found["v_é 1"].segments) == sorted(given_["v_é 1"].segments)


def test_several_videos_need_a_folder_and_nothing_is_overwritten(tmp_path: Path):
    one = AnnotatedVideo((Segment(1, 2, "x"),))
    with refused(AnnotationError, path=tmp_path / "a.srt"):
        write_as(Annotations({"a": one, "b": one}), "subrip", tmp_path / "a.srt")
    write_as(Annotations({"a": one}), "subrip", tmp_path / "a.srt")
    for out in (tmp_path / "a.srt", tmp_path):
        with refused(UsageError, option="out", value=out):
            write_as(Annotations({"a": one}), "subrip", out)
    with refused(UsageError, value="captions"):
        write_as(Annotations({"a": one}), "captions", tmp_path / "b")


def test_the_command_converts_between_dialects(tmp_path: Path):
    source = written(tmp_path / "session.eaf", ELAN)
    words = ["convert", str(source), "--to", "table", "--out", str(tmp_path / "a.csv")]
    assert CliRunner().invoke(command, words, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == [
        "video,start,end,label",
        "my rat,0.78,1.28,groom & lick",
    ]
    with pytest.raises(UsageError):
        CliRunner().invoke(command, [*words, "--videos", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize("dialect", ["elan", "subrip", "webvtt"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, dialect: str):
    annotations = Annotations({"../../evil": AnnotatedVideo((Segment(1, 2, "x"),))})
    (file,) = write_as(annotations, dialect, tmp_path / "out")
    assert file.parent == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
