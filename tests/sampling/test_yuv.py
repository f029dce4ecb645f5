"""Swscale's integers, and which samples a bilinear filter reads of a coded picture."""

from __future__ import annotations

from itertools import product

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter

from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvFormat, YuvReading, colour_tables, to_rgb

FULL_RANGE = 2
CONVERSIONS = list(product((1, 2, 4, 5, 6, 7, 9), (False, True)))


def converted(
    planes: list[npt.NDArray[np.uint8]], matrix: int, full: bool
) -> npt.NDArray[np.uint8]:
    """RGB by PyAV, with what the product asks it for."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, "yuv420p")
    picture.colorspace, picture.color_range = matrix, FULL_RANGE if full else 1
    for plane, samples in zip(picture.planes, planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        rows[: samples.shape[0], : samples.shape[1]] = samples
    rgb = VideoReformatter().reformat(picture, format="rgb24", interpolation="BICUBIC", threads=1)
    row_bytes = rgb.planes[0].line_size
    rows = np.frombuffer(rgb.planes[0], np.uint8).reshape(-1, row_bytes)[:height]
    return rows[:, : width * 3].reshape(height, width, 3)


def require_equal(matrix: int, full: bool, some_u: range) -> None:
    """All of Y times all of V, with each of the given U."""
    tables = colour_tables(matrix, full)
    assert tables is not None
    # Each V stands in 64 blocks of two by two pixels, in which Y takes all its values.
    v = np.arange(256, dtype=np.uint8).reshape(8, 32).repeat(64, axis=1)
    y = np.arange(256, dtype=np.uint8).reshape(64, 2, 2).transpose(1, 0, 2).reshape(2, 128)
    y = np.tile(y, (len(v), v.shape[1] // 64))
    for u in some_u:
        planes = [y, np.full_like(v, u), v]
        blue, red = (plane.repeat(2, 0).repeat(2, 1) for plane in planes[1:])
        assert (converted(planes, matrix, full) == to_rgb(y, blue, red, tables)).all()


@pytest.mark.parametrize(("matrix", "full"), CONVERSIONS)
def test_many_colours_are_converted_as_swscale_does(matrix: int, full: bool) -> None:
    require_equal(matrix, full, range(7 * full, 256, 15))


@pytest.mark.slow
@pytest.mark.parametrize(("matrix", "full"), CONVERSIONS)
def test_every_colour_is_converted_as_swscale_does(matrix: int, full: bool) -> None:
    require_equal(matrix, full, range(256))


def test_other_matrices_have_no_constants() -> None:
    assert [n for n in range(18) if colour_tables(n, False)] == [1, 2, 4, 5, 6, 7, 9]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (46, 61), (2, 3), (720, 1280)])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_packed_picture_has_all_that_is_read_at_the_places_that_are_named(
    height: int, width: int, rotation_deg: int, mirrored: bool
) -> None:
    """A surface of a hardware decoder holds the same samples at other places."""
    size = (height, width), (height // 2, -(-width // 2)), (height // 2, -(-width // 2))
    random = np.random.default_rng(0)
    planes = [random.integers(0, 256, each, dtype=np.uint8) for each in size]
    pitch = width + 21
    luma = np.zeros((height, pitch), np.uint8)
    luma[:, :width] = planes[0]
    # U and V in turns.
    chroma = np.zeros((height // 2, pitch), np.uint8)
    chroma[:, 0 : 2 * size[1][1] : 2], chroma[:, 1 : 2 * size[1][1] : 2] = planes[1:]
    reading = YuvReading(
        YuvFormat(height, width, 1, False, rotation_deg, mirrored),
        FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32"),
    )
    packed = np.zeros(reading.n_bytes, np.uint8)
    reading.pack(planes, packed)
    memory = (luma.ravel(), chroma.ravel(), chroma.ravel()[1:])
    index = reading.strided_index([(pitch, 1), (pitch, 2), (pitch, 2)])
    there = np.stack([one[places] for one, places in zip(memory, index, strict=True)])
    assert (packed[reading.packed_index()] == there).all()
    assert reading.n_bytes <= sum(plane.size for plane in planes)
    assert np.abs(reading.weights.sum(0) - 1).max() < 1e-6


def test_a_large_picture_is_packed_into_a_fraction_of_its_bytes() -> None:
    spec = FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32")
    whole = 1080 * 1920 * 3 // 2
    assert YuvReading(YuvFormat(1080, 1920), spec).n_bytes < whole / 6
