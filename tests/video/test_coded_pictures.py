"""Decode processes hand over coded pictures, of which the consumer makes the same frames."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tests.builders.videos import make_video
from tests.video.pools import pool_of
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvReading
from tspcli.video import Failed, Frames, list_videos

FramesByTicks = dict[tuple[int, ...], npt.NDArray[np.float32]]


def test_coded_pictures_come_where_the_same_frames_can_be_made_of_them(tmp_path: Path) -> None:
    """Those of another kind, and of another size than a video's first, come as frames."""
    make_video(tmp_path / "plain.mp4", n_frames=90)
    make_video(tmp_path / "turned.mp4", n_frames=60, rotation_deg=90, width=48, height=64)
    make_video(tmp_path / "fine.mp4", n_frames=60, pixel_format="yuv444p")
    first = make_video(tmp_path / "first.ts", n_frames=30).read_bytes()
    larger = make_video(tmp_path / "larger.ts", n_frames=30, start=30, width=128, height=96)
    (tmp_path / "changing.ts").write_bytes(first + larger.read_bytes())
    names = ("plain.mp4", "turned.mp4", "fine.mp4", "changing.ts")
    files = list_videos([tmp_path / name for name in names])
    spec = FrameSpec(ResizeSpec(32, 43), crop=(24, 24), dtype="float32")

    def frames_of(**options: object) -> dict[str, FramesByTicks]:
        found: dict[str, FramesByTicks] = {}
        with pool_of(files, spec=spec, chunk_bytes=5000, **options) as pool:
            for event in pool:
                assert not isinstance(event, Failed)
                if isinstance(event, Frames):
                    pixels = torch.from_numpy(event.pixels)
                    kinds[event.job.key].add(event.yuv is not None)
                    if event.yuv is not None:
                        reading = YuvReading(event.yuv, spec)
                        pixels = YuvFrames(reading, torch.device("cpu")).from_packed(pixels)
                    found.setdefault(event.job.key, {}).update(
                        zip(event.ticks, pixels.clone().numpy(), strict=True)
                    )
                    event.release()
        return found

    kinds: dict[str, set[bool]] = defaultdict(set)
    expected_frames = frames_of()
    assert not any(chain(*kinds.values()))
    kinds.clear()
    found = frames_of(as_yuv=True)
    assert kinds == {
        "plain": {True}, "turned": {True}, "fine": {False}, "changing": {True, False},
    }  # fmt: skip
    assert found.keys() == expected_frames.keys()
    for key, frames in expected_frames.items():
        assert found[key].keys() == frames.keys()
        assert all(np.abs(found[key][at] - frames[at]).max() < 1e-4 for at in frames)
