"""Running an encoder: frames and clips in, features out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.networks import random_frames
from tspcli.encoders import load_encoder
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import UsageError


def test_features_are_those_of_the_plain_model(run_dir: Path) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    frames = random_frames(3, 16, 112, 112, 3)
    features = encoder.encode_frames(frames)
    assert features.dtype == torch.float32 and features.shape == (3, 128)
    clips = torch.stack([Preprocessing().center_clip(clip) for clip in frames])
    with torch.inference_mode():
        expected = encoder.module.features(clips)
        logits = encoder.module.fc1(expected)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    found = encoder.classify(features)
    assert found is not None
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)


def test_frames_are_normalised_once_and_shared_by_clips(run_dir: Path) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    frames = random_frames(20, 112, 112, 3)
    prepared = encoder.prepare(frames)
    assert prepared.shape == (20, 3, 112, 112)
    clips = torch.stack([prepared[s : s + 16].transpose(0, 1) for s in (0, 4)])
    one_by_one = torch.cat([encoder.encode_frames(frames[None, s : s + 16]) for s in (0, 4)])
    torch.testing.assert_close(encoder.encode(clips), one_by_one, rtol=1e-4, atol=1e-5)


def test_fp16_that_overflows_is_an_error(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    encoder.precision = "fp16"
    monkeypatch.setattr(encoder, "form", lambda clips: torch.full((1, 128), float("inf")))
    with pytest.raises(UsageError) as caught:
        encoder.encode_frames(random_frames(1, 16, 112, 112, 3))
    assert caught.value.data == {"option": "precision", "value": "fp16"}


def test_bf16_on_a_cpu_stays_near(run_dir: Path) -> None:
    frames = random_frames(2, 16, 112, 112, 3)
    exact = load_encoder(run_dir, device="cpu").encode_frames(frames)
    encoder = load_encoder(run_dir, device="cpu", precision="bf16")
    assert encoder.prepare(frames[0]).dtype == torch.bfloat16
    found = encoder.encode_frames(frames)
    assert found.dtype == torch.float32
    assert ((found - exact).norm() / exact.norm()).item() < 2e-2


def test_clip_length_is_checked_before_computing() -> None:
    encoder = load_encoder("random", backbone="mvit_v2_s", device="cpu")
    with pytest.raises(UsageError) as caught:
        encoder.encode(torch.zeros(1, 3, 8, 224, 224))
    assert caught.value.data == {"option": "clip_length", "value": 8}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32", "bf16", "fp16"])
def test_precisions_on_cuda(run_dir: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames = random_frames(4, 16, 112, 112, 3)
    exact = load_encoder(run_dir, device="cpu").encode_frames(frames)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    found = load_encoder(run_dir, device="cuda", precision=precision).encode_frames(frames)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    bar = 1e-5 if precision == "fp32" else 1e-2
    assert ((found - exact).norm(dim=1) / exact.norm(dim=1)).max().item() < bar
