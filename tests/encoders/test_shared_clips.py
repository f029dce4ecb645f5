"""Overlapping clips that share their first layers have the features of clips encoded alone."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.builders.networks import relative, shaken
from tspcli.encoders import load_encoder
from tspcli.encoders.backbones import build_backbone
from tspcli.encoders.backbones.resnet3d import VideoResNet
from tspcli.encoders.fused import FastVideoResNet, inference_form
from tspcli.encoders.shared_clips import SharedVideoResNet
from tspcli.sampling import Sampling

CPU = torch.device("cpu")


def cut(frames: torch.Tensor, stride: int, length: int = 16) -> torch.Tensor:
    starts = range(0, len(frames) - length + 1, stride)
    return torch.stack([frames[start : start + length] for start in starts]).transpose(1, 2)


def series(count: int, stride: int, size: int, length: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn((count - 1) * stride + length, 3, size, size, generator=generator)


@pytest.mark.parametrize(
    ("name", "count", "stride", "size"),
    [
        ("tiny", 9, 1, 40),
        ("tiny", 6, 5, 37),
        ("r2plus1d_18", 5, 1, 24),
        ("r2plus1d_18", 3, 3, 31),
        ("r3d_18", 5, 2, 24),
    ],
)
def test_equal_to_clips_alone(
    name: str, count: int, stride: int, size: int, convolutions: str
) -> None:
    torch.manual_seed(10)
    plain = shaken(build_backbone(name))
    quick = inference_form(plain, CPU, torch.float32)
    assert isinstance(quick, FastVideoResNet)
    frames = series(count, stride, size)
    before = frames.clone()
    with torch.inference_mode():
        expected = plain(cut(frames, stride))
        found = SharedVideoResNet(quick)(frames, 16, stride)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5
    assert torch.equal(frames, before)


def test_r2plus1d_34_of_which_two_times_are_left() -> None:
    torch.manual_seed(11)
    plain = shaken(build_backbone("r2plus1d_34"))
    quick = inference_form(plain, CPU, torch.float32)
    assert isinstance(quick, FastVideoResNet)
    shared = SharedVideoResNet(quick)
    assert shared.lost == 7
    frames = series(2, 1, 16)
    with torch.inference_mode():
        assert relative(shared(frames, 16, 1), plain(cut(frames, 1))) <= 1e-5


@pytest.mark.parametrize(
    ("name", "least"), [("r2plus1d_18", 1.45), ("r3d_18", 1.35), ("r2plus1d_34", 1.15)]
)
def test_fewer_operations(name: str, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tspcli.encoders.fused.has_fused_convolutions", lambda dtype: False)
    with torch.device("meta"):
        quick = FastVideoResNet(cast(VideoResNet, build_backbone(name).eval()))
        frames = torch.empty(16 + 15, 3, 112, 112)
        clips = torch.empty(16, 3, 16, 112, 112)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as alone:
            quick(clips)
        with FlopCounterMode(display=False) as together:
            SharedVideoResNet(quick)(frames, 16, 1)
    assert alone.get_total_flops() / together.get_total_flops() > least


@pytest.mark.parametrize(("name", "largest"), [("r2plus1d_18", 4), ("r2plus1d_34", 2)])
def test_strides_that_pay(name: str, largest: int) -> None:
    with torch.device("meta"):
        quick = FastVideoResNet(cast(VideoResNet, build_backbone(name).eval()))
    assert SharedVideoResNet(quick).largest_stride == largest


def test_where_it_is_used() -> None:
    encoder = load_encoder("random", backbone="tiny", device="cpu")
    assert encoder.supports_series(Sampling(stride=1))
    assert not encoder.supports_series(Sampling(stride=16))
    assert not encoder.supports_series(Sampling(stride=1, clip_length=6)), (
        "no time of a clip is common"
    )
    assert not encoder.supports_series(Sampling(stride=1, frame_rate=Fraction(25))), (
        "no common grid"
    )
    assert not load_encoder("random", backbone="tiny", device="cpu", fast=False).supports_series(
        Sampling(stride=1)
    )
