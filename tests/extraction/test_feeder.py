"""Frames that are prepared beside the encoder are those that the encoder prepares itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tspcli.encoders import load_encoder
from tspcli.extraction.clip_assembler import ClipAssembler
from tspcli.extraction.feeder import FramePreparer
from tspcli.sampling import Sampling


def prepared_in_turn(device: str) -> None:
    encoder = load_encoder("random", backbone="tiny", device=device)
    preparer = FramePreparer(encoder)
    shared = torch.empty(3, 112, 112, 3)
    chunks, expected = [], []
    for seed in range(8):
        # The decoder's memory is used again as soon as the call is over.
        shared.uniform_(0, 255, generator=torch.Generator().manual_seed(seed))
        expected.append(encoder.prepare(shared.clone()))
        chunks.append(preparer.prepare(shared))
        shared.zero_()
    for chunk, frames in zip(chunks, expected, strict=True):
        assert torch.equal(chunk.receive(), frames)


def test_on_a_cpu() -> None:
    prepared_in_turn("cpu")


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
        frames = preparer.prepare(torch.full((40, 112, 112, 3), 99.0)).receive()
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
