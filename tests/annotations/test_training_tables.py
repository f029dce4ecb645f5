"""The two tables of training, and durations and counts that come from the files themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.annotations import write
from tests.builders.refusals import refused
from tests.builders.videos import make_video
from tspcli.annotations import read_groundtruth, read_metadata
from tspcli.annotations.training_tables import METADATA_COLUMNS, probe_folder, write_metadata
from tspcli.errors import AnnotationError


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("fps", "n_frames"), [(30, 61), (25, 50)])
def test_counts_with_and_without_a_count_in_the_header(
    tmp_path: Path, suffix: str, fps: int, n_frames: int
) -> None:
    make_video(tmp_path / f"v.{suffix}", fps=fps, n_frames=n_frames)
    (found,) = probe_folder(tmp_path).videos
    assert found.filename == f"v.{suffix}"
    assert found.n_frames == n_frames
    assert found.fps == pytest.approx(fps, rel=2e-3)  # Matroska rounds times to milliseconds
    assert found.duration_s == pytest.approx(n_frames / fps, abs=2e-3)


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    make_video(tmp_path / "good.mp4", fps=30, n_frames=30)
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    seen = []
    found = probe_folder(tmp_path, on_video=lambda name, done, total: seen.append((name, done)))
    assert [video.filename for video in found.videos] == ["good.mp4"]
    assert list(found.failed) == ["bad.mp4"]
    assert [done for _, done in seen] == [1, 2]
    (tmp_path / "good.mp4").unlink()
    with refused(AnnotationError, path=tmp_path):
        probe_folder(tmp_path)


def test_metadata_survives_writing(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", fps=30, n_frames=31)
    videos = probe_folder(tmp_path).videos
    write_metadata(tmp_path / "m.csv", videos)
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == ",".join(METADATA_COLUMNS)
    assert read_metadata(tmp_path / "m.csv") == videos


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("filename,video-duration,fps\na.mp4,1,30\n", {"missing": ["video-frames"]}),
        ("filename,video-duration,fps,video-frames\na.mp4,0,30,0\n", {"line": 2, "value": 0.0}),
        ("filename,video-duration,fps,video-frames\n,1,30,30\n", {"line": 2}),
        ("filename,video-duration,fps,video-frames\na.mp4,1,x,30\n", {"field": "fps"}),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, content: str, data: dict) -> None:
    with refused(AnnotationError, **data):
        read_metadata(write(tmp_path / "m.csv", content))


@pytest.mark.parametrize(
    ("rows", "data"),
    [
        ("", {}),
        (",0,1,run,9\n", {"line": 2, "field": "filename"}),
        ("a.mp4,0,nan,run,9\n", {"line": 2, "field": "t-end", "value": "nan"}),
        ("a.mp4,0,1,run,\n", {"line": 2, "field": "video-duration"}),
    ],
)
def test_groundtruth_that_does_not_fit(tmp_path: Path, rows: str, data: dict) -> None:
    header = "filename,t-start,t-end,action-label,video-duration\n"
    with refused(AnnotationError, **data):
        read_groundtruth(write(tmp_path / "gt.csv", header + rows))
