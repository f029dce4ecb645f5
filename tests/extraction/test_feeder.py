"""Frames that are prepared beside the encoder are those that the encoder prepares itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tspcli.encoders import load_encoder
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.extraction.clip_assembler import ClipAssembler
from tspcli.extraction.feeder import FramePreparer
from tspcli.sampling import Sampling
from tspcli.sampling.yuv import YuvFormat, YuvReading
from tspcli.video import Frames, VideoFile


def frames_of(pixels: torch.Tensor, yuv: YuvFormat | None = None) -> Frames:
    """Frames as a pool gives them."""
    file = VideoFile(Path("v.mp4"), "v")
    return Frames(file, [], pixels.numpy(), lambda frames: None, yuv=yuv)


def prepared_in_turn(device: str) -> None:
    encoder = load_encoder("random", backbone="tiny", device=device)
    preparer = FramePreparer(encoder)
    shared = torch.empty(3, 112, 112, 3)
    chunks, expected = [], []
    for seed in range(8):
        # The decoder's memory is used again as soon as the call is over.
        shared.uniform_(0, 255, generator=torch.Generator().manual_seed(seed))
        expected.append(encoder.prepare(shared.clone()))
        chunks.append(preparer.prepare(frames_of(shared)))
        shared.zero_()
    for chunk, frames in zip(chunks, expected, strict=True):
        assert torch.equal(chunk.receive(), frames)


def test_on_a_cpu() -> None:
    prepared_in_turn("cpu")


def made_of_coded_pictures(device: str) -> None:
    encoder = load_encoder("random", backbone="tiny", device=device)
    preparer = FramePreparer(encoder)
    # More formats than are kept.
    for width in range(120, 260, 2):
        reading = YuvReading(YuvFormat(90, width, 1), encoder.frame_spec)
        random = torch.Generator().manual_seed(width)
        packed = torch.randint(0, 256, (2, reading.n_bytes), dtype=torch.uint8, generator=random)
        frames = YuvFrames(reading, torch.device("cpu")).from_packed(packed)
        found = preparer.prepare(frames_of(packed, reading.format)).receive()
        assert (found - encoder.prepare(frames)).abs().max() < 1e-5


def test_frames_are_made_of_coded_pictures_on_a_cpu() -> None:
    made_of_coded_pictures("cpu")


@pytest.mark.gpu
def test_frames_are_made_of_coded_pictures_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    made_of_coded_pictures("cuda")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    prepared_in_turn("cuda")


@pytest.mark.gpu
def test_nobody_waits_for_a_gpu_until_its_rows_are_wanted() -> None:
    """Or nothing would be gathered while it works."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    encoder = load_encoder("random", backbone="tiny", device="cuda")
    preparer = FramePreparer(encoder)
    ticks = [(2 * sample,) for sample in range(40)]

    def begun() -> Callable[[], torch.Tensor]:
        frames = preparer.prepare(frames_of(torch.full((40, 112, 112, 3), 99.0))).receive()
        clips = ClipAssembler(Sampling(stride=4)).add(frames, ticks, 8)
        return encoder.encode_async(
            torch.cat([some for some in clips if isinstance(some, torch.Tensor)])
        )

    # The first time algorithms are searched for and memory is locked.
    begun()()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = begun()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows().shape == (7, 128)
