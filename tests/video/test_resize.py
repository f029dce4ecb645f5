"""The resize beside torch's, which is the one of the official features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tspcli.sampling.pixels import FrameDtype, FrameSpec, ResizeSpec
from tspcli.video.resize import resize_frame

SIZES = [(240, 320), (360, 480), (1080, 1920), (49, 65), (128, 171), (90, 120), (427, 240)]


def torch_resized(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    # In double precision: torch's own single precision rounds coordinates, by up to 0.02 of 255
    # between noisy pixels of a 1080p frame.
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()
    scaled = torch.nn.functional.interpolate(
        image, size=size, mode="bilinear", align_corners=False, antialias=False
    )
    return scaled[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("uint8", 1.0)])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    "resize", [ResizeSpec(128, 171), ResizeSpec(short_side=256)], ids=["exact", "short side"]
)
def test_it_is_torchs_bilinear(
    height: int, width: int, resize: ResizeSpec, dtype: FrameDtype, bound: float
) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = resize_frame(rgb, FrameSpec(resize, dtype=dtype))
    theirs = torch_resized(rgb, resize.target(height, width))
    assert ours.dtype == dtype
    assert ours.flags.c_contiguous
    assert np.abs(ours - theirs).max() <= bound


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("resize", "crop"),
    [(ResizeSpec(128, 171), (112, 112)), (ResizeSpec(short_side=256), (224, 224))],
    ids=["exact", "short side"],
)
def test_what_lies_outside_the_crop_changes_nothing(
    height: int, width: int, resize: ResizeSpec, crop: tuple[int, int], dtype: FrameDtype
) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = resize_frame(rgb, FrameSpec(resize, dtype=dtype))
    spec = FrameSpec(resize, crop=crop, dtype=dtype)
    top, left = spec.crop_origin(*whole.shape[:2])
    expected = whole[top : top + crop[0], left : left + crop[1]]
    assert (resize_frame(rgb, spec) == expected).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_crop_is_the_centre_of_the_scaled_frame(dtype: FrameDtype) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    resize = ResizeSpec(128, 171)
    whole = resize_frame(rgb, FrameSpec(resize, dtype=dtype))
    cropped = resize_frame(rgb, FrameSpec(resize, crop=(112, 112), dtype=dtype))
    # round((128 - 112) / 2) = 8; round((171 - 112) / 2) = round(29.5) = 30.
    assert (cropped == whole[8:120, 30:142]).all()


@pytest.mark.parametrize("crop", [None, (112, 112)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_writing_in_place_gives_the_same(crop: tuple[int, int] | None, dtype: FrameDtype) -> None:
    rows = np.random.default_rng(3).integers(0, 256, (240, 400, 3), dtype=np.uint8)
    rgb = rows[:, :320]  # as from a decoder, whose rows are padded
    spec = FrameSpec(ResizeSpec(128, 171), crop=crop, dtype=dtype)
    out = np.zeros((*spec.output_shape(240, 320), 3), dtype)
    assert resize_frame(rgb, spec, out=out) is out
    assert (out == resize_frame(np.ascontiguousarray(rgb), spec)).all()


def test_frames_that_change_size_keep_the_shape_of_the_first() -> None:
    spec = FrameSpec(ResizeSpec(short_side=128))
    out = np.zeros((128, 170, 3), np.uint8)
    other = np.full((300, 300, 3), 77, np.uint8)
    assert (resize_frame(other, spec, out=out) == 77).all()
    cropped = FrameSpec(ResizeSpec(short_side=128), crop=(120, 160))
    out = np.zeros((120, 160, 3), np.uint8)
    assert (resize_frame(other, cropped, out=out) == 77).all()
