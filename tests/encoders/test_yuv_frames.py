"""Frames made of coded pictures in torch are those that a decode process scales."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from tests.sampling.test_yuv import converted
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvFormat, YuvReading
from tspcli.video.decoders.containers import Orientation
from tspcli.video.resize import resize_frame

TSP = FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32")
CPU = torch.device("cpu")
TURNS = [*product((0, 90, 180, 270), (False, True))]


def both(yuv: YuvFormat, spec: FrameSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture's frame by torch, and by swscale and OpenCV."""
    half = yuv.height // 2, -(-yuv.width // 2)
    random = np.random.default_rng(seed)
    sizes = (yuv.height, yuv.width), half, half
    planes = [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    reading = YuvReading(yuv, spec)
    packed = np.empty((1, reading.n_bytes), np.uint8)
    reading.pack(planes, packed[0])
    found = YuvFrames(reading, CPU).from_packed(torch.from_numpy(packed))
    turn = Orientation(yuv.rotation_deg, yuv.mirrored)
    rgb = turn.apply(converted(planes, yuv.matrix, yuv.full_range))
    return found[0].numpy(), resize_frame(rgb, spec)


@pytest.mark.parametrize("width", [*range(2, 40), 161, 427])
def test_pixels_that_are_not_scaled_are_equal_bit_for_bit(width: int) -> None:
    """Whatever part of swscale's vectors a row fills."""
    whole = FrameSpec(ResizeSpec(18, width), dtype="float32")
    found, expected = both(YuvFormat(18, width, 1), whole)
    assert (found == expected).all()


@pytest.mark.parametrize(("rotation_deg", "mirrored"), TURNS)
@pytest.mark.parametrize(
    "spec",
    [TSP, FrameSpec(ResizeSpec(short_side=50), dtype="float32"),
     FrameSpec(ResizeSpec(short_side=256), crop=(224, 224), dtype="float32")],
    ids=["tsp", "whole", "i3d"],
)  # fmt: skip
@pytest.mark.parametrize(("height", "width"), [(48, 64), (46, 61), (360, 480)])
def test_scaled_frames_are_those_of_a_decode_process(
    height: int, width: int, spec: FrameSpec, rotation_deg: int, mirrored: bool
) -> None:
    found, expected = both(YuvFormat(height, width, 5, True, rotation_deg, mirrored), spec)
    assert np.abs(found - expected).max() < 1e-4


def test_large_noisy_pictures_are_scaled_as_exactly() -> None:
    found, expected = both(YuvFormat(1080, 1920, 1), TSP)
    assert np.abs(found - expected).max() < 1e-4


def test_a_spec_of_8_bits_rounds() -> None:
    yuv = YuvFormat(360, 480, 1)
    found, theirs = both(yuv, FrameSpec(TSP.resize, TSP.crop, "uint8"))
    _, exact = both(yuv, TSP)
    assert (found == np.round(found)).all()
    assert np.abs(found - exact).max() < 0.5 + 1e-4
    # OpenCV rounds in fixed point.
    assert np.abs(found - theirs).max() <= 1
