"""Frames that are prepared beside the encoder are those that the encoder prepares itself."""

from __future__ import annotations

import pytest
import torch

from tspcli.encoders import load_encoder
from tspcli.extraction.preparing import FramePreparer


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
