"""Preprocessing: the published recipe, step by step, against an independent transcription."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tspcli.encoders.preprocessing import ClipDraw, Preprocessing
from tspcli.errors import UsageError
from tspcli.sampling.pixels import ResizeSpec

MEAN = torch.tensor((0.43216, 0.394666, 0.37645)).view(3, 1, 1, 1)
STD = torch.tensor((0.22803, 0.22145, 0.216989)).view(3, 1, 1, 1)


def literal_validation_clip(scaled: Tensor) -> Tensor:
    """The order of the official code on scaled frames: 0..1, normalise, crop the centre."""
    clip = scaled.float().permute(3, 0, 1, 2) / 255
    clip = (clip - MEAN) / STD
    top, left = round((128 - 112) / 2), round((171 - 112) / 2)
    return clip[:, :, top : top + 112, left : left + 112]


@pytest.fixture
def scaled() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 128, 171, 3), dtype=torch.uint8, generator=generator)


def test_center_clip_is_the_official_validation_view(scaled: Tensor) -> None:
    clip = Preprocessing().center_clip(scaled)
    assert clip.shape == (3, 4, 112, 112)
    torch.testing.assert_close(clip, literal_validation_clip(scaled))


def test_frames_cropped_by_a_worker_give_the_same(scaled: Tensor) -> None:
    look = Preprocessing()
    top, left = look.frame_spec().crop_origin(128, 171)
    assert (top, left) == (8, 30)
    cropped = scaled[:, top : top + 112, left : left + 112]
    frames = look.normalize(cropped)
    torch.testing.assert_close(frames.transpose(0, 1), literal_validation_clip(scaled))
    exact = look.normalize(cropped.float())
    assert torch.equal(exact, frames)


def test_normalize_leaves_its_input_alone() -> None:
    frames = torch.full((1, 2, 2, 3), 100.0)
    Preprocessing().normalize(frames)
    assert torch.equal(frames, torch.full((1, 2, 2, 3), 100.0))


def test_constants_made_without_gradients_serve_a_training(
    scaled: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are moved to a device once, by whichever comes first."""
    made: list[object] = []
    real = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: (made.append(a), real(*a, **k))[1])
    # Values that no other test uses.
    look = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    with torch.inference_mode():
        expected = look.normalize(scaled)
    frames = scaled.float().requires_grad_()
    found = look.normalize(frames)
    found.sum().backward()
    assert frames.grad is not None
    assert torch.equal(found.detach(), expected)
    assert len(made) == 2


def test_i3d_range() -> None:
    look = Preprocessing(ResizeSpec(short_side=256), (224, 224), (0.5,) * 3, (0.5,) * 3)
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, 3)
    assert look.normalize(ends).unique().tolist() == [-1.0, 1.0]


def test_training_view_flips_and_crops_all_frames_alike(scaled: Tensor) -> None:
    look = Preprocessing()
    draw = look.draw(128, 171, (0.49, 0.999999, 0.0))
    assert draw == ClipDraw(flip=True, top=16, left=0)
    clip = look.augment_clip(scaled, draw)
    mirrored = (scaled.float().permute(3, 0, 1, 2) / 255).flip(-1)
    expected = ((mirrored - MEAN) / STD)[:, :, 16:128, 0:112]
    torch.testing.assert_close(clip, expected)


def test_draws_cover_every_corner_and_no_other() -> None:
    look = Preprocessing()
    steps = [i / 1000 for i in range(1000)]
    draws = [look.draw(128, 171, (u, u, u)) for u in steps]
    assert {d.top for d in draws} == set(range(128 - 112 + 1))
    assert {d.left for d in draws} == set(range(171 - 112 + 1))
    assert sum(d.flip for d in draws) == 500


def test_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Preprocessing().draw(100, 171, (0.0, 0.0, 0.0))
    assert caught.value.data["value"] == (100, 171)


def test_whole_recipe_from_a_full_frame() -> None:
    """Bilinear, half-pixel, without antialias: the float path equals the official steps."""
    frame = torch.rand(1, 240, 320, 3, generator=torch.Generator().manual_seed(1)) * 255
    planes = F.interpolate(
        frame.permute(0, 3, 1, 2) / 255, (128, 171), mode="bilinear", align_corners=False
    )
    official = ((planes.transpose(0, 1) - MEAN) / STD)[:, :, 8:120, 30:142]
    scaled = F.interpolate(
        frame.permute(0, 3, 1, 2), (128, 171), mode="bilinear", align_corners=False
    )
    ours = Preprocessing().center_clip(scaled.permute(0, 2, 3, 1))
    torch.testing.assert_close(ours, official, rtol=1e-5, atol=1e-5)


def test_round_trip_as_plain_values() -> None:
    look = Preprocessing(ResizeSpec(short_side=256), (224, 224), (0.5,) * 3, (0.5,) * 3)
    assert Preprocessing.from_dict(look.to_dict()) == look
    assert Preprocessing.from_dict(Preprocessing().to_dict()) == Preprocessing()


def test_wrong_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, h, w, 3\)"):
        Preprocessing().normalize(torch.zeros(1, 3, 112, 112))
