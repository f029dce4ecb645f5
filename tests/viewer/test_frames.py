"""Frames on request: a decoder that hangs or dies costs that request alone."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.builders.videos import make_video

pytest.importorskip("starlette")

from tspcli.errors import VideoError
from tspcli.viewer.frames import FrameServer


@pytest.fixture
def frames():
    server = FrameServer()
    yield server
    server.close()


def test_frames_forward_backward_and_far_apart(frames: FrameServer, tmp_path: Path):
    path = make_video(tmp_path / "a.mp4", n_frames=300)
    for number in (0, 1, 2, 250, 3, 299, 298, 120):
        shown = frames.frame(path, (number + 0.5) / 30, 100)
        assert shown.start_s == pytest.approx(number / 30, abs=1e-4)
        last = number == 299
        assert (
            shown.end_s is None
            if last
            else shown.end_s == pytest.approx((number + 1) / 30, abs=1e-4)
        )


def test_a_time_after_the_end_shows_the_last_frame(frames: FrameServer, tmp_path: Path):
    path = make_video(tmp_path / "a.mp4", n_frames=30)
    assert frames.frame(path, 500.0, 100).start_s == pytest.approx(29 / 30, abs=1e-4)


def test_a_file_that_is_no_video_is_named_and_costs_nothing_else(
    frames: FrameServer, tmp_path: Path
):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(VideoError) as caught:
        frames.frame(tmp_path / "broken.mp4", 0.0, 100)
    assert caught.value.reason == "not-a-video"
    assert (
        frames.frame(make_video(tmp_path / "a.mp4", n_frames=30), 0.0, 100).jpeg[:2] == b"\xff\xd8"
    )


@pytest.mark.faults
def test_a_decoder_that_hangs_or_dies_is_replaced(tmp_path: Path):
    path = make_video(tmp_path / "a.mp4", n_frames=30)
    server = FrameServer(patience_s=20)
    try:
        server.frame(path, 0.0, 100)
        (worker,) = server.pids
        os.kill(worker, signal.SIGSTOP)
        server.patience_s = 0.3
        with pytest.raises(VideoError) as caught:
            server.frame(path, 0.5, 100)
        assert caught.value.reason == "timeout"
        server.patience_s = 20
        server.frame(path, 0.5, 100)
        (worker,) = server.pids
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (worker, signal.SIGKILL)).start()
        with pytest.raises(VideoError) as caught:
            server.frame(path, 0.7, 100)
        assert caught.value.reason == "crashed"
        assert server.frame(path, 0.7, 100).jpeg
    finally:
        server.close()
