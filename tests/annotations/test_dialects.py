"""Each dialect is detected and read; what does not fit is refused with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.annotations import EXAMPLES, write, write_example
from tests.builders.refusals import refused
from tspcli.annotations import (
    AnnotatedVideo,
    Annotations,
    Segment,
    read_actions,
    read_annotations,
    read_groundtruth,
)
from tspcli.annotations.dialects import DATA_SETS, DIALECTS, Dialect, data_set_of
from tspcli.annotations.text_files import Source
from tspcli.cli.main import cli
from tspcli.errors import AnnotationError, UsageError
from tspcli.localization.metrics import ACTIVITYNET_TIOUS, THUMOS14_TIOUS

ENTRY = {"annotations": [{"segment": [1, 2.5], "label": "Archery"}]}


def actions(found: Annotations) -> dict[str, list[Segment]]:
    return {name: list(video.segments) for name, video in found.items()}


def subsets(found: Annotations) -> dict[str, str]:
    return {name: video.subset for name, video in found.items() if video.subset is not None}


class TestTable:
    def test_it_imports_none_of_the_dialects(self) -> None:
        code = (
            "import sys, tspcli.annotations.dialects as d; print(*(m for m in sys.modules if "
            "m.startswith('tspcli.annotations.dialects.')), 'numpy' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.stdout.split() == ["False"], found.stderr

    @pytest.mark.parametrize("name", sorted(EXAMPLES))
    def test_every_example_is_detected(self, tmp_path: Path, name: str) -> None:
        path = write_example(tmp_path, name)
        assert read_annotations(path).dialect == EXAMPLES[name][0]
        assert read_annotations(path, EXAMPLES[name][0]) == read_annotations(path)

    def test_every_dialect_has_an_example(self) -> None:
        assert {dialect for dialect, _ in EXAMPLES.values()} | {"metadata"} == set(DIALECTS)

    def test_protocols_are_those_of_the_official_code(self) -> None:
        assert {name: dialect.tious for name, dialect in DATA_SETS.items()} == {
            "activitynet": ACTIVITYNET_TIOUS,
            "thumos14": THUMOS14_TIOUS,
            "multithumos": tuple(np.linspace(0.1, 0.9, 9)),
            "charades": tuple(np.linspace(0.1, 0.9, 9)),
            "epic-kitchens": tuple(np.linspace(0.1, 0.5, 5)),
            "ego4d": tuple(np.linspace(0.1, 0.5, 5)),
            "hacs": ACTIVITYNET_TIOUS,
            "fineaction": ACTIVITYNET_TIOUS,
            "own": ACTIVITYNET_TIOUS,
        }

    def test_names_decide_on_the_data_set(self) -> None:
        assert data_set_of(["video_test_0000001", "video_validation_1"]).name == "thumos14"
        for names in (["v_---9CpRcKoU"], ["v_GGSY1Qvo990", "v_-1IBHYS3L-Y"], ["GGSY1Qvo990"]):
            assert data_set_of(names).name == "activitynet"
        for names in (
            *(["video_test_1", "other"], ["v_abc"], [], ["video_00001", "video_00002"]),
            *(["P01_01"], ["AO8RW"], ["v_GGSY1Qvo990", "cam2"], ["v_ApplyEyeMakeup_g01_c01"]),
        ):
            assert data_set_of(names).name == "own"

    def test_an_unknown_dialect(self, tmp_path: Path) -> None:
        path = write_example(tmp_path, "anet.json")
        with refused(UsageError, value="klingon"):
            read_annotations(path, "klingon")
        with refused(UsageError, option="--column"):
            read_annotations(path, "activitynet", columns={"video": "a"})


TOY = Dialect(
    "toy",
    __name__,
    "lines of start|end|label|video|part",
    min_gap_s=2.0,
    splits={"learn": "train"},
    tious=(0.1,),
)


def detects(source: Source) -> bool:
    return not source.is_folder and source.text.startswith("#toy")


def read(source: Source) -> Annotations:
    found = Annotations(path=source.path)
    for line in source.text.splitlines()[1:]:
        start, end, label, video, part = line.split("|")
        segments = (*found.get(video, AnnotatedVideo()).segments,)
        own = Segment(float(start), float(end), label)
        found[video] = AnnotatedVideo((*segments, own), subset=part)
    return found


class TestDialectFromOutside:
    """This module, with the line above in the table, is a dialect."""

    @pytest.fixture
    def toy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setitem(DIALECTS, "toy", TOY)
        return write(tmp_path / "a.toy", "#toy\n1|4|run|a|learn\n9|10|jump|a|learn\n")

    def test_it_is_converted(self, toy: Path, tmp_path: Path) -> None:
        metadata = "filename,video-duration,fps,video-frames\na.mp4,11,30,330\n"
        words = ["annotations", "convert", str(toy), "--out", str(tmp_path / "t")]
        words += ["--metadata", str(write(tmp_path / "m.csv", metadata))]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        rows = read_groundtruth(tmp_path / "t" / "train_groundtruth.csv")
        assert [(r.start_s, r.end_s, r.label) for r in rows] == [
            (1, 4, "run"),
            (9, 10, "jump"),
            (4, 9, None),
        ]

    def test_its_protocol_evaluates(self, toy: Path, tmp_path: Path) -> None:
        results = {"a": [{"segment": [1, 3], "score": 0.9, "label": "run"}]}
        path = write(tmp_path / "found.json", {"results": results})
        words = ["localize", "evaluate", "--results", str(path), "--annotations", str(toy)]
        words += ["--subset", "learn", "--protocol", "toy", "--json"]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        assert list(json.loads(result.stdout)["detection"]["map"]) == ["0.10"]


class TestActivityNet:
    def test_release_with_subsets(self, tmp_path: Path) -> None:
        database = {
            "a": {"subset": "training", "duration": 9.0, **ENTRY},
            "b": {"subset": "validation", "annotations": []},
            "c": {"subset": "testing", "annotations": []},
        }
        path = write(tmp_path / "anet.json", {"version": "1.3", "database": database})
        found = read_annotations(path)
        assert actions(found) == {"a": [Segment(1.0, 2.5, "Archery")], "b": [], "c": []}
        assert subsets(found) == {"a": "training", "b": "validation", "c": "testing"}
        assert found["a"].duration_s == 9.0
        assert found.find("v_a") == "a" and found.find("v_z") is None

    def test_bsn_without_subsets(self, tmp_path: Path) -> None:
        found = read_annotations(
            write(tmp_path / "a.json", {"v_a": {"duration_second": 9.0, **ENTRY}})
        )
        assert actions(found) == {"v_a": [Segment(1.0, 2.5, "Archery")]}
        assert subsets(found) == {}
        assert found.find("v_a") == found.find("a") == "v_a"

    @pytest.mark.parametrize(
        ("text", "data"),
        [
            ("{", {}),
            ("[]", {}),
            ("{}", {}),
            ('{"v_x": {"segments": []}}', {}),
            ('{"database": {}}', {}),
            ('{"database": {"a": 3}}', {"video": "a", "value": 3}),
            ('{"v_x": {"annotations": []}, "v_y": {}}', {"video": "v_y"}),
            ('{"v_x": {"annotations": [{"segment": [1], "label": "A"}]}}', {"video": "v_x"}),
            ('{"database": {"a": {"annotations": [{"segment": [1, "x"], "label": "r"}]}}}',
             {"video": "a", "field": "segment", "value": "x"}),
            ('{"database": {"a": {"duration": "long"}}}', {"field": "duration", "value": "long"}),
            ('{"database": {"a": {"duration": -5}}}', {"field": "duration", "value": -5.0}),
            ('{"v_a": {"annotations": [], "duration_frame": -9}}', {"video": "v_a", "value": -9}),
            ('{"database": {"a": {"subset": ["x"]}}}', {"field": "subset", "value": ["x"]}),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, tmp_path: Path, text: str, data: dict[str, object]) -> None:
        path = write(tmp_path / "anet.json", text)
        with refused(AnnotationError, path=path, **data):
            read_annotations(path)

    @pytest.mark.parametrize("label", [None, ["x", "y"], True, 1.5, "", {"name": "x"}])
    def test_labels_that_are_no_class(self, tmp_path: Path, label: object) -> None:
        segment = {"segment": [1, 2], "label": label}
        for data in ({"database": {"a": {"annotations": [segment]}}},
                     {"a": {"annotations": [segment]}}):  # fmt: skip
            with refused(AnnotationError, video="a", field="label", value=label):
                read_annotations(write(tmp_path / "a.json", data))
        captions = {"a": {"timestamps": [[1, 2]], "sentences": [label]}}
        with refused(AnnotationError, video="a", field="sentences", value=label):
            read_annotations(write(tmp_path / "c.json", captions))

    @pytest.mark.parametrize(
        "text",
        [
            '{"database": {"a": {"annotations": []}, "a": {"annotations": []}}}',
            '{"database": {"a": {"duration": 1, "duration": 2}}}',
            '{"v_a": {"annotations": []}, "v_b": {"annotations": []}, "v_a": {"annotations": []}}',
            '{"v_a": {"annotations": [{"label": "x", "segment": [0, 1], "label": "y"}]}}',
            '{"v_a": {"timestamps": [], "sentences": []}, "v_a": {"timestamps": []}}',
        ],
    )
    def test_a_key_appears_once(self, tmp_path: Path, text: str) -> None:
        path = write(tmp_path / "a.json", text)
        with refused(AnnotationError, path=path) as caught:
            read_annotations(path)
        assert "twice" in caught.value.message

    def test_captions_are_not_actions(self, tmp_path: Path) -> None:
        for name in ("train.csv", "train.json"):
            with refused(AnnotationError, kind="captions"):
                read_actions(write_example(tmp_path, name))


class TestThumos14:
    def test_class_files(self, tmp_path: Path) -> None:
        write(
            tmp_path / "Diving_val.txt",
            "video_validation_0000051  67.5 75.9\nvideo_validation_0000051 3 4.5\n\n",
        )
        write(tmp_path / "Diving_test.txt", "video_test_0000004  1.0 2.0 \n")
        write(tmp_path / "Ambiguous_val.txt", "video_validation_0000051  10 11\n")
        write(tmp_path / "readme.txt", "not a class file")
        found = read_actions(tmp_path)
        assert actions(found) == {
            "video_test_0000004": [Segment(1.0, 2.0, "Diving")],
            "video_validation_0000051": [
                Segment(67.5, 75.9, "Diving"),
                Segment(3.0, 4.5, "Diving"),
            ],
        }
        assert found.skipped == {"Ambiguous": 1}
        assert found.labels() == ["Diving"]
        assert read_annotations(tmp_path).labels() == ["Ambiguous", "Diving"]
        assert set(subsets(found).values()) == {"valid", "test"}

    def test_what_does_not_fit(self, tmp_path: Path) -> None:
        path = write(tmp_path / "Diving_val.txt", "video_validation_0000051 67.5 75.9\nvideo 3\n")
        for source in (tmp_path, path):
            with refused(AnnotationError, path=path, line=2):
                read_annotations(source)
        path.unlink()
        with refused(AnnotationError, path=tmp_path):
            read_annotations(tmp_path)
        with refused(AnnotationError, path=tmp_path):
            read_annotations(tmp_path, "thumos14")

    def test_files_split_videos_with_other_names(self, tmp_path: Path) -> None:
        write(tmp_path / "Jump_val.txt", "cam A.mp4  1 2\n")
        write(tmp_path / "Jump_test.txt", "cam B 1:02.5 1:05\nvideo_validation_0000051 1 2\n")
        write(tmp_path / "Run_train.txt", "  cam  C\t3 4  \n")
        found = read_annotations(tmp_path)
        assert actions(found) == {
            "cam A": [Segment(1, 2, "Jump")],
            "cam B": [Segment(62.5, 65, "Jump")],
            "video_validation_0000051": [Segment(1, 2, "Jump")],
            "cam  C": [Segment(3, 4, "Run")],
        }
        assert subsets(found) == {
            "cam A": "valid",
            "cam B": "test",
            "video_validation_0000051": "valid",  # by its name, whatever the file's
            "cam  C": "train",
        }
        metadata = (
            "filename,video-duration,fps,video-frames\ncam A.mp4,9,30,270\ncam B.mp4,90,30,9\n"
        )
        words = ["annotations", "convert", str(tmp_path), "--out", str(tmp_path / "t")]
        words += ["--metadata", str(write(tmp_path / "m.csv", metadata))]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        assert {p.name for p in (tmp_path / "t").glob("*_groundtruth.csv")} == {
            *("valid_groundtruth.csv", "test_groundtruth.csv")
        }

    @pytest.mark.parametrize("other", ["test", "train"])
    def test_a_video_in_files_of_two_subsets(self, tmp_path: Path, other: str) -> None:
        write(tmp_path / "Jump_val.txt", "a 1 2\nb 1 2\n")
        path = write(tmp_path / f"Run_{other}.txt", "c 1 2\nb 1 2\n")
        first, second = (path, other), (tmp_path / "Jump_val.txt", "valid")
        last = max(first, second)
        with refused(AnnotationError, path=last[0], line=2, video="b", value=last[1]):
            read_annotations(tmp_path)

    def test_subsets_come_from_its_own_names_alone(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "thumos.csv",
            "video,start,end,label,subset\nvideo_test_0000004,1,2,Diving,x\n"
            "video_validation_0000051,1,2,Diving,\ncontest_1,1,2,Diving,train\n",
        )
        assert subsets(read_annotations(path, "thumos14")) == {
            "video_test_0000004": "test",
            "video_validation_0000051": "valid",
            "contest_1": "train",
        }


class TestProtocol:
    @pytest.mark.parametrize(
        ("names", "dialect", "expected"),
        [
            (["cam1"], "thumos14", "thumos14"),
            (["video_test_0000004"], "activitynet", "thumos14"),
            (["v_GGSY1Qvo990"], "bsn", "activitynet"),
            (["cam1", "cam2"], "table", "own"),
            (["cam1"], "activitynet", "own"),
        ],
    )
    def test_it_follows_the_annotations(
        self, names: list[str], dialect: str, expected: str
    ) -> None:
        assert data_set_of(names, dialect).name == expected


class TestTables:
    @pytest.mark.parametrize(
        "header",
        [
            "file,begin,finish,class",
            "video_id,start_timestamp,stop_timestamp,activity",
            "VIDEO-ID,begin_s,finish_s,Class_Name",
            "name,from,to,event",
        ],
    )
    def test_headers_that_people_use(self, tmp_path: Path, header: str) -> None:
        path = write(tmp_path / "a.csv", f"{header}\na.mp4,1:02.5,1:04,jump\n")
        assert actions(read_annotations(path)) == {"a": [Segment(62.5, 64, "jump")]}

    @pytest.mark.parametrize("delimiter", [",", "\t", ";"])
    def test_tables(self, tmp_path: Path, delimiter: str) -> None:
        path = tmp_path / "actions.csv"
        rows = [
            ["label", "Filename", "t-start", "t-end", "split"],
            ["run", "clips/a.mp4", "1.5", "1:02.5", "train"],
            ["", "clips/a.mp4", "70", "80", "train"],
            ["jump", "b.v2", "0", "1:00:00", ""],
        ]
        path.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8-sig")
        found = read_annotations(path)
        assert actions(found) == {
            "a": [Segment(1.5, 62.5, "run")],
            "b.v2": [Segment(0.0, 3600.0, "jump")],
        }
        assert subsets(found) == {"a": "train"}
        assert found.skipped == {"no label": 1}

    def test_named_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path / "actions.csv", "clip,a,b,what\nx,1,2,run\n")
        columns = {"video": "clip", "start": "a", "end": "b", "label": "what"}
        found = read_annotations(path, columns=columns)
        assert actions(found) == {"x": [Segment(1.0, 2.0, "run")]}
        with refused(AnnotationError, path=path, missing="video"):
            read_annotations(path, "table")
        with refused(AnnotationError, missing="end"):
            read_annotations(path, columns={**columns, "end": "zz"})
        with refused(AnnotationError, value="foo"):
            read_annotations(path, columns={"foo": "clip"})

    @pytest.mark.parametrize(
        ("content", "data"),
        [
            ("video,start,end,label\nx,1,2,run\nx,1,soon,run\n",
             {"line": 3, "field": "end", "value": "soon"}),
            ("video-name,t-start,t-end,action-label\none,x,2,run\n",
             {"line": 2, "field": "t-start", "value": "x"}),
            ("video-name,t-start,t-end,action-label\n,1,2,run\n",
             {"line": 2, "field": "video-name"}),
            ("video-name,t-start,t-end,action-label\na,1\n", {"line": 2, "field": "t-end"}),
            ("video-name,t-start,t-end,action-label\na,1,,run\n", {"line": 2, "field": "t-end"}),
            ("video-name,t-start,t-end,action-label\n", {}),
            ("video,start,end,label,split\na,1,2,x,train\na,1,2,x,val\n",
             {"line": 3, "video": "a", "value": "val"}),
            ("filename,video-duration\na.mp4,10\n", {"kind": "metadata"}),
            ("filename,video-duration\nx.mp4,long\n",
             {"line": 2, "field": "video-duration", "value": "long"}),
            ("video,subset\na,training\na,training\n", {"line": 3, "video": "a"}),
            ("a,b\n1,2\n", {}),
            ("", {}),
            ("video,start,end,label\na,1,2,jump,high\n", {"line": 2, "value": "high"}),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, tmp_path: Path, content: str, data: dict[str, object]) -> None:
        path = write(tmp_path / "a.csv", content)
        with refused(AnnotationError, path=path, **data):
            read_actions(path)

    def test_two_labels_that_disagree(self, tmp_path: Path) -> None:
        header = "video-name,t-start,t-end,action-label,video-duration,filename"
        path = write(
            tmp_path / "gt.csv",
            f"{header},temporal-region-label\na,0,1,run,9,a.mp4,Action\n"
            "a,2,3,run,9,a.mp4,No action\n",
        )
        for read_table in (read_groundtruth, read_annotations):
            with refused(AnnotationError, line=3, value="No action"):
                read_table(path)

    def test_a_row_may_end_before_its_label(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.csv", "video,start,end,label\na,1,2,run\na,3,4\n")
        found = read_annotations(path)
        assert [segment.label for segment in found["a"].segments] == ["run"]
        assert found.skipped == {"no label": 1}

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
        self, tmp_path: Path, filename: str, name: str
    ) -> None:
        for content in (
            f"filename,video-duration\n{filename},9\n",
            f"video,start,end,label\n{filename},1,2,run\n",
        ):
            assert list(read_annotations(write(tmp_path / "t.csv", content))) == [name]


def test_a_source_of_another_kind(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "video,start,end,label\na,1,2,run\n")
    data = write_example(tmp_path, "anet.json")
    for path, dialect in ((table, "activitynet"), (table, "bsn"), (data, "table"),
                          (data, "captions"), (tmp_path, "table"), (data, "metadata")):  # fmt: skip
        with refused(AnnotationError, path=path):
            read_annotations(path, dialect)
