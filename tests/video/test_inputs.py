"""Which videos an input names, and what they are called."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.videos import make_video
from tspcli.core.video_names import store_key
from tspcli.errors import UsageError, VideoError
from tspcli.video import VideoFile, describe_skipped, find_videos, list_videos, probe


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def keys(videos: list[VideoFile]) -> list[str]:
    return [video.key for video in videos]


def test_a_folder_is_searched_in_a_stable_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.mp4", "a.MKV", "sub/c.webm", "notes.txt", ".hidden.mp4", ".git/d.mp4", "e.h5"
    )
    assert keys(list_videos(tmp_path)) == ["a", "b", "c"]


def test_what_a_folder_holds_beside_videos_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "old.QT", "b.mp4.part", "sub/c.PART", "sub/README", "d.jpg")
    touch(tmp_path, ".e.mp4", ".git/f.mp4", ".git/g.mp4")
    listing = find_videos(tmp_path)
    assert keys(listing.videos) == ["a", "old"]
    assert listing.skipped_files == {".part": 2, "hidden": 2, "no ending": 1, ".jpg": 1}
    said = describe_skipped(listing.skipped_files)
    assert said == "6 files skipped: 2 .part, 2 hidden, 1 .jpg, 1 no ending"
    with pytest.raises(UsageError, match="2 files skipped: 1 no ending"):
        find_videos(tmp_path / "sub")
    many = {f".{number}": 1 for number in range(9)}
    assert describe_skipped(many).endswith("1 .5, 3 with other endings")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert keys(list_videos(tmp_path / "real")) == ["a"]


def test_a_folder_that_cannot_be_listed_is_a_failed_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "ok/a.mp4", "secret/b.mp4", "gone/c.mp4", "stale/x/d.mp4", "gone.mp4")
    real = os.scandir
    failures = {"secret": errno.EACCES, "gone": errno.ENOENT, "stale": errno.ESTALE}

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        code = failures.get(Path(path).name)
        if code is not None:
            raise OSError(code, os.strerror(code), os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    videos = list_videos(tmp_path)
    found = keys(videos)
    assert found[:4] == ["gone", "a", *sorted(found[2:4])]
    assert {"secret", "stale"} < set(found)
    for name, reason in (("secret", "unreadable"), ("gone", "missing"), ("stale", "unreadable")):
        with pytest.raises(VideoError) as caught:
            probe(tmp_path / name)
        assert caught.value.reason == reason
        assert tmp_path / name in [video.path for video in videos]


def test_a_folder_that_vanishes_while_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "ok/a.mp4", "sub/b.mp4")
    real = os.stat

    def stat(path: str, **options: Any) -> os.stat_result:
        if Path(path).name == "sub":
            raise FileNotFoundError(errno.ENOENT, "gone", os.fspath(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert keys(list_videos(tmp_path)) == ["a", "sub"]


def test_a_list_names_paths_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/b.avi")
    content = "\ufeff# of two\r\n\r\na.mp4\r\n  ../y/b.avi  \n../z/missing.mp4\n"
    (tmp_path / "x" / "list.txt").write_text(content, newline="")
    videos = list_videos(tmp_path / "x" / "list.txt")
    assert keys(videos) == ["a", "b", "missing"]
    assert [video.path.is_file() for video in videos] == [True, True, False]


def test_a_file_that_is_named_may_have_any_suffix_or_not_exist(tmp_path: Path) -> None:
    touch(tmp_path, "v_abc.d.data")
    videos = list_videos([tmp_path / "v_abc.d.data", tmp_path / "gone.mp4"])
    assert keys(videos) == ["v_abc.d", "gone"]


def test_one_file_named_twice_is_one_video(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert keys(list_videos([tmp_path, tmp_path / "a.mp4", tmp_path / "." / "a.mp4"])) == ["a"]


def test_two_videos_of_one_key_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/a.mkv")
    with pytest.raises(UsageError, match=r"x/a\.mp4.*y/a\.mkv") as caught:
        list_videos(tmp_path)
    assert caught.value.data["value"] == "a"
    assert keys(list_videos(tmp_path, "{parent}_{stem}")) == ["x_a", "y_a"]
    assert keys(list_videos(tmp_path, "{name}")) == ["a.mp4", "a.mkv"]


@pytest.mark.parametrize("template", ["", "fixed", "{what}", "{stem", "a/{stem}", "{0}"])
def test_templates_that_make_no_keys_are_refused(tmp_path: Path, template: str) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(UsageError) as caught:
        list_videos(tmp_path, template)
    assert caught.value.data["value"] == template


def test_no_video_at_all_is_refused(tmp_path: Path) -> None:
    for named, value in ((tmp_path, str(tmp_path)), ([], "nothing")):
        with pytest.raises(UsageError) as caught:
            list_videos(named)
        assert caught.value.data["value"] == value
    with pytest.raises(UsageError) as caught:
        list_videos(tmp_path / "gone.txt")
    assert caught.value.data["path"] == str(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("v_a-b.mp4", "v_a-b"),
        ("100% real.mp4", "100% real"),
        ("-x.mp4", "-x"),
        ("a.b.c.mp4", "a.b.c"),
        (".mp4", ".mp4"),
        ("..mp4", "%2E"),
        ("a\nb\x7f.mp4", "a%0Ab%7F"),
        ("\udcff.mp4", "%FF"),
        ("日本.mp4", "日本"),
    ],
)
def test_keys_of_strange_names(tmp_path: Path, name: str, key: str) -> None:
    assert keys(list_videos(tmp_path / name)) == [key]


@given(st.text(st.characters(), min_size=1))
def test_every_key_is_valid_in_hdf5(text: str) -> None:
    key = store_key(text)
    key.encode("utf-8")
    assert key not in ("", ".", "..")
    assert not set(key) & {"/", "\0", "\n", "\r", "\t", "\x1b"}


def test_probing_tells_the_facts(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", fps=25, n_frames=50, rotation_deg=90, width=48, height=64)
    info = probe(path)
    assert (info.width, info.height, info.rotation_deg) == (48, 64, 90)
    assert (info.fps, info.duration_s, info.n_frames) == (25, 2, 50)
    assert (info.codec, info.pixel_format) == ("h264", "yuv420p")
    assert info.to_dict()["fps"] == "25"
    assert os.fspath(path) == info.path
