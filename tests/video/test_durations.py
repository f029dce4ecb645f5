"""Durations by the headers, whatever the files do to the process that reads them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.builders.videos import make_video
from tspcli.video import durations
from tspcli.video.durations import header_duration_ms, read_durations


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "v.mp4", fps=30, n_frames=75, width=96)


def test_files_of_all_kinds(video: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"-a \n \xff;|$(x).mp4")
    shutil.copy(video, odd)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    os.mkfifo(tmp_path / "pipe.mp4")
    names = [odd, tmp_path / "broken.mp4", video, tmp_path / "none.mp4", tmp_path / "pipe.mp4"]
    assert read_durations(names) == [2500, None, 2500, None, None]
    assert read_durations([]) == []


def test_a_duration_that_no_file_can_have_is_not_believed(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert header_duration_ms(str(video)) == 2500
    monkeypatch.setattr(durations, "LEAST_BYTES_PER_S", video.stat().st_size)
    assert header_duration_ms(str(video)) is None


def test_a_file_that_kills_or_stalls_its_reader_goes_without(video: Path, tmp_path: Path) -> None:
    names = ["a", "kill-1", "b", "kill-2", "c", "d", "hang", "e", "f"]
    paths = [Path(shutil.copy(video, tmp_path / f"{name}.mp4")) for name in names]
    fragile = "tests.video.fragile_durations"
    found = read_durations(paths, children=2, file_limit_s=3.0, module=fragile)
    assert found == [None if "-" in name or name == "hang" else 2500 for name in names]
    pids = [int(file.name.partition(".")[2]) for file in tmp_path.glob("started.*")]
    assert 3 <= len(pids) <= 5
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_readers_that_do_not_start_are_not_started_for_every_file(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_reader.py").write_text(
        f"import os\nopen({str(tmp_path)!r} + f'/started.{{os.getpid()}}', 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert read_durations([video] * 50, children=2, module="no_reader") == [None] * 50
    assert len(list(tmp_path.glob("started.*"))) == 2
