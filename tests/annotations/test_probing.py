"""Durations and counts come from the files, whatever their container tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.videos import make_video
from tspcli.annotations import read_metadata
from tspcli.annotations.training_tables import METADATA_COLUMNS, probe_folder, write_metadata
from tspcli.errors import AnnotationError


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("fps", "n_frames"), [(30, 61), (25, 50)])
def test_counts_of_containers_that_tell_and_that_do_not(
    tmp_path: Path, suffix: str, fps: int, n_frames: int
) -> None:
    make_video(tmp_path / f"v.{suffix}", fps=fps, n_frames=n_frames)
    (found,) = probe_folder(tmp_path).videos
    assert found.filename == f"v.{suffix}"
    assert found.n_frames == n_frames
    assert found.fps == pytest.approx(fps, rel=2e-3)  # Matroska rounds times to milliseconds
    assert found.duration_s == pytest.approx(n_frames / fps, abs=2e-3)


def test_unreadable_files_are_told_apart(tmp_path: Path) -> None:
    make_video(tmp_path / "good.mp4", fps=30, n_frames=30)
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    seen = []
    found = probe_folder(tmp_path, on_video=lambda name, done, total: seen.append((name, done)))
    assert [video.filename for video in found.videos] == ["good.mp4"]
    assert list(found.failed) == ["bad.mp4"]
    assert [done for _, done in seen] == [1, 2]
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(AnnotationError, match="No video"):
        probe_folder(tmp_path)


def test_metadata_survives_writing(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", fps=30, n_frames=31)
    videos = probe_folder(tmp_path).videos
    write_metadata(tmp_path / "m.csv", videos)
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == ",".join(METADATA_COLUMNS)
    assert read_metadata(tmp_path / "m.csv") == videos
