"""A video whose name stands in one source in two Unicode forms is one video."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.builders.annotations import SEGMENT, write
from tests.builders.refusals import refused
from tspcli.annotations import VideoEntry, read_annotations
from tspcli.annotations.convert import convert
from tspcli.annotations.editing import EditedSegment, open_for_editing
from tspcli.errors import AnnotationError

NAMES = ["caf\u00e9", "\ud55c\uad6d", "v_\u30ac\u30e9\u30b9"]


def forms(name: str) -> list[str]:
    return [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]


def spans(path: Path) -> dict[str, list[tuple[float, float]]]:
    found = read_annotations(path)
    return {name: [segment[:2] for segment in video.segments] for name, video in found.items()}


def activitynet(names: Iterable[str]) -> object:
    return {"database": {name: {"annotations": [SEGMENT]} for name in names}}


def bsn(names: Iterable[str]) -> object:
    return {name: {"annotations": [SEGMENT]} for name in names}


def captions(names: Iterable[str]) -> object:
    return {name: {"timestamps": [[1, 2.5]], "sentences": ["Archery"]} for name in names}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [activitynet, bsn, captions])
def test_two_keys_of_an_object_are_refused(tmp_path: Path, content, name: str) -> None:
    first, second = forms(name)
    path = write(tmp_path / "a.json", content([first, "other", second]))
    with refused(AnnotationError, path=path, video=second, value=first) as caught:
        read_annotations(path)
    assert ascii(first) in caught.value.message and ascii(second) in caught.value.message
    assert list(read_annotations(write(path, content([first, "other"])))) == [first, "other"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", ["label", "caption"])
def test_rows_of_a_table_are_of_one_video(tmp_path: Path, label: str, name: str) -> None:
    first, second = forms(name)
    header = f"video_id,{label},start,end\n"
    rows = f"{first},run,1,2\nother,run,0,1\n{second}.mp4,jump,5,6\n{first},run,3,4\n"
    path = write(tmp_path / "a.csv", header + rows)
    assert spans(path) == {first: [(1, 2), (5, 6), (3, 4)], "other": [(0, 1)]}


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_class_files_are_of_one_video(tmp_path: Path, name: str) -> None:
    first, second = forms(name)
    write(tmp_path / "Jump_val.txt", f"{first} 1 2\n{second} 3 4\n")
    write(tmp_path / "Run_val.txt", f"{second} 5 6\n")
    assert spans(tmp_path) == {first: [(1, 2), (3, 4), (5, 6)]}
    test = write(tmp_path / "Jump_test.txt", f"{second} 7 8\n")
    with refused(
        AnnotationError, path=tmp_path / "Jump_val.txt", line=1, video=second, value="valid"
    ):
        read_annotations(tmp_path)
    assert spans(test) == {second: [(7, 8)]}


def test_a_project_of_via_shows_one_video(tmp_path: Path) -> None:
    first, second = forms("caf\u00e9")
    project = {
        "project": {},
        "attribute": {"1": {"type": 1}},
        "file": {str(n): {"fname": f"{name}.mp4"} for n, name in enumerate((first, second))},
        "view": {str(n): {"fid_list": [str(n)]} for n in range(2)},
        "metadata": {
            str(n): {"vid": str(n), "z": [n, n + 1], "xy": [], "av": {"1": "run"}} for n in range(2)
        },
    }
    assert spans(write(tmp_path / "p.json", project)) == {first: [(0, 1), (1, 2)]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_two_files_of_subtitles_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    for each in forms(name):
        write(tmp_path / f"{each}{suffix}", "00:00:01.000 --> 00:00:02.000\nrun\n")
    with refused(AnnotationError, path=tmp_path / f"{max(forms(name))}{suffix}"):
        read_annotations(tmp_path, {".srt": "subrip", ".vtt": "webvtt"}[suffix])


def test_a_table_of_videos_names_each_once(tmp_path: Path) -> None:
    rows = "".join(f"{name}.mp4,9\n" for name in forms("caf\u00e9"))
    path = write(tmp_path / "m.csv", "filename,video-duration\n" + rows)
    with refused(AnnotationError, path=path, line=3):
        read_annotations(path)


def test_two_files_of_one_name_have_no_tables(tmp_path: Path) -> None:
    first, second = forms("caf\u00e9")
    table = write(tmp_path / "a.csv", f"video,start,end,label\n{first},1,2,run\n")
    entries = [VideoEntry(f"{name}.mp4", 9.0, 30.0, 270) for name in (first, second)]
    with refused(AnnotationError, video=second):
        convert(read_annotations(table), {"train": entries}, tmp_path / "out")


def test_an_editor_shows_one_video(tmp_path: Path) -> None:
    first, second = forms("caf\u00e9")
    text = f"video,start,end,label\n{first},1,2,run\n{second},5,6,run\n"
    file = open_for_editing(write(tmp_path / "a.csv", text))
    assert list(file.segments) == [first]
    saved = file.save({first: [*file.segments[first], EditedSegment(8, 9, "jump")]})
    assert saved.path.read_text(encoding="utf-8") == text + f"{first},8,9,jump\n"
    path = write(tmp_path / "a.json", json.dumps(activitynet([first, second])))
    with refused(AnnotationError, path=path, video=second, value=first):
        open_for_editing(path)
