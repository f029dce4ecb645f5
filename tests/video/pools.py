"""Pools over four short videos whose frames carry their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.builders.videos import make_video
from tests.video.fake_decoders import FAKES
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DecodePool, DecoderEntry, VideoFile, list_videos
from tspcli.video.decoders import why_unusable

SPEC = FrameSpec(ResizeSpec(48, 64))


def make_pool_videos(folder: Path) -> list[VideoFile]:
    """Videos of 240, 150, 60 and 9 frames."""
    for index, n_frames in enumerate((240, 150, 60, 9)):
        make_video(folder / f"v{index}.mp4", n_frames=n_frames)
    return list_videos(folder)


def pool_of(
    videos: Sequence[VideoFile], *, decoder: str | Sequence[str] = "auto", **options: Any
) -> DecodePool:
    """A pool of two workers; decoders may be named that fail (:data:`FAKES`)."""
    names = [decoder] if isinstance(decoder, str) else decoder
    entries: list[str | DecoderEntry] = [FAKES.get(name, name) for name in names]
    settings: dict[str, Any] = {
        "sampling": Sampling(),
        "spec": SPEC,
        "workers": 2,
        "timeout_s": 20.0,
        "decoder": "auto" if decoder == "auto" else entries,
        "chunk_bytes": 20 * 48 * 64 * 3,
    }
    return DecodePool(videos, **(settings | options))


@cache
def problem(decoder: str) -> str | None:
    """What keeps a decoder from working here."""
    return why_unusable(decoder)


def usable(decoder: str) -> str:
    """The decoder, if it works here; else the test is skipped, with the reason."""
    if (reason := problem(decoder)) is not None:
        pytest.skip(f"{decoder}: {reason}")
    return decoder


def usable_of(decoders: Iterable[str]) -> list[str]:
    """Those that work here, as parameters; ``test_every_decoder_works_here`` names the others."""
    return [decoder for decoder in decoders if problem(decoder) is None]


def expected(n_frames: int) -> list[tuple[int, int]]:
    return [(tick, tick) for tick in range(0, n_frames, 2)]
