"""What a run tells of itself while its videos are under way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders.videos import make_video
from tspcli.core.progress import Reporter
from tspcli.encoders import load_encoder
from tspcli.extraction import ExtractConfig, RunFigures, extract


class Figures(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[RunFigures] = []

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self.seen.append(replace(figures))


def test_a_video_counts_while_it_is_under_way(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "long.mp4", fps=30, n_frames=600)
    watcher = Figures()
    report = extract(
        videos,
        tmp_path / "f.h5",
        encoder=load_encoder("random", backbone="tiny", seed=1, device="cpu"),
        config=ExtractConfig(batch_size=3, workers=1),
        reporter=watcher,
    )
    under_way = [figures for figures in watcher.seen if figures.n_clips and not figures.n_ended]
    assert len(under_way) >= 4
    assert under_way[0].decode_wait_s == 0, "the start of the decode processes is nobody's limit"
    for figures in under_way[:-1]:
        # 16 samples at 15 a second a clip.
        assert figures.video_s == pytest.approx(figures.n_clips * 16 / 15)
        share = figures.video_s / 20
        assert figures.begun_bytes == pytest.approx(share * figures.total_bytes)
        # What a device that dies now leaves to the others.
        left = figures.of_the_lost(0.0)
        assert (left.begun_bytes, left.video_s, left.n_clips) == (0, 0, figures.n_clips)
        assert figures.left_s == pytest.approx(figures.elapsed_s * (1 / share - 1))
    last = watcher.seen[-1]
    assert (last.begun_bytes, last.ended_bytes, last.left_s) == (0, last.total_bytes, 0)
    assert report.video_s == pytest.approx(20)


def test_a_video_that_is_given_up_counts_for_nothing(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    whole = make_video(
        videos / "cut.mp4", fps=30, n_frames=600, container_options={"movflags": "faststart"}
    )
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    watcher = Figures()
    report = extract(
        videos,
        tmp_path / "f.h5",
        encoder=load_encoder("random", backbone="tiny", seed=1, device="cpu"),
        config=ExtractConfig(batch_size=1, workers=1, strict=True),
        reporter=watcher,
    )
    assert [video.status for video in report.videos] == ["failed"]
    assert max(figures.video_s for figures in watcher.seen) > 1
    assert report.video_s == pytest.approx(0)
    assert watcher.seen[-1].begun_bytes == 0
