"""Pools over four short videos whose frames carry their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.builders.videos import make_video
from tests.video.fake_decoders import HOOK
from tspcli.sampling.clock import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DecodePool, VideoFile, list_videos

SPEC = FrameSpec(ResizeSpec(48, 64))


def make_pool_videos(folder: Path) -> list[VideoFile]:
    """Videos of 240, 150, 60 and 9 frames."""
    for index, n_frames in enumerate((240, 150, 60, 9)):
        make_video(folder / f"v{index}.mp4", n_frames=n_frames)
    return list_videos(folder)


def pool_of(videos: Sequence[VideoFile], **options: Any) -> DecodePool:
    settings: dict[str, Any] = {
        "sampling": Sampling(),
        "spec": SPEC,
        "workers": 2,
        "timeout_s": 20.0,
        "extra_decoders": (HOOK,),
        "chunk_bytes": 20 * 48 * 64 * 3,
    }
    return DecodePool(videos, **(settings | options))


def expected(n_frames: int) -> list[tuple[int, int]]:
    return [(tick, tick) for tick in range(0, n_frames, 2)]
