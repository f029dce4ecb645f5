"""Pictures as video codecs store them, 8-bit 4:2:0, and what a bilinear filter reads of them.

FFmpeg's swscale converts such pictures to RGB with integer multiplications and repeats each chroma
sample for two by two pixels (libswscale/x86/yuv_2_rgb.asm; its constants: libswscale/yuv2rgb.c).
:func:`colour_tables` gives its pixels, bit for bit. Every pixel of a scaled frame is a weighted
mean of four source pixels, so whoever scales needs those alone: :class:`YuvReading` says which they
are, copies them out of a picture, and finds them again in the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.sampling.pixels import FrameSpec

# By ITU-T H.273 number: V to red, U to blue, U to green, V to green, 16 fractional bits.
_BT601 = (104597, 132201, 25675, 53279)
_MATRICES = {
    1: (117489, 138438, 13975, 34925),
    2: _BT601,
    4: (104448, 132798, 24759, 53109),
    5: _BT601,
    6: _BT601,
    7: (117579, 136230, 16907, 35559),
    9: (110013, 140363, 12277, 42626),
}


class ColourTables(NamedTuple):
    """What each sample adds to a pixel, int16, shape (256,): swscale's integers for one matrix.

    Red is ``luma[y] + v_red[v]``, green ``luma[y] + u_green[u] + v_green[v]``, blue ``luma[y] +
    u_blue[u]``, each clipped to 0..255.
    """

    luma: npt.NDArray[np.int16]
    v_red: npt.NDArray[np.int16]
    u_green: npt.NDArray[np.int16]
    v_green: npt.NDArray[np.int16]
    u_blue: npt.NDArray[np.int16]


@lru_cache
def colour_tables(matrix: int, full_range: bool) -> ColourTables | None:
    """The tables of a conversion; None if there is none for this matrix.

    Args:
        matrix: ITU-T H.273 number; 2 (unspecified) is BT.601, as in swscale.
        full_range: Whether Y takes 0 to 255 instead of 16 to 235.
    """
    if matrix not in _MATRICES:
        return None
    v_red, u_blue, u_green, v_green = _MATRICES[matrix]
    luma, black, chroma = 1 << 16, 0, [v_red, -u_green, -v_green, u_blue]
    if full_range:
        chroma = [int(factor * 224 / 255) for factor in chroma]
    else:
        luma, black = luma * 255 // 219, 16
    samples = np.arange(256, dtype=np.int64)

    def table(factor: int, zero: int) -> npt.NDArray[np.int16]:
        # The factor has 16 fractional bits, of which 13 are used, and so has the product.
        return ((samples - zero) * ((factor + 4) >> 3) >> 13).astype(np.int16)

    return ColourTables(table(luma, black), *(table(factor, 128) for factor in chroma))


def to_rgb(
    luma: npt.NDArray[np.uint8],
    blue: npt.NDArray[np.uint8],
    red: npt.NDArray[np.uint8],
    tables: ColourTables,
) -> npt.NDArray[np.uint8]:
    """The pixels that swscale makes of samples.

    Args:
        luma: Y samples, any shape.
        blue: The U sample of each.
        red: The V sample of each.
        tables: The conversion.

    Returns:
        RGB in a last axis more.
    """
    bright = tables.luma[luma]
    channels = (
        bright + tables.v_red[red],
        bright + tables.u_green[blue] + tables.v_green[red],
        bright + tables.u_blue[blue],
    )
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class YuvFormat:
    """What all 8-bit 4:2:0 pictures of a series have in common.

    Attributes:
        height, width: Of the luma plane, as coded. The chroma planes have half of both, rounded up.
        matrix: The colour matrix, by its number in ITU-T H.273.
        full_range: Whether Y takes 0 to 255 instead of 16 to 235.
        rotation_deg: Degrees clockwise by which the picture is rotated: 0, 90, 180 or 270.
        mirrored: Whether it is mirrored left to right before that.
    """

    height: int
    width: int
    matrix: int = 2
    full_range: bool = False
    rotation_deg: int = 0
    mirrored: bool = False

    @property
    def tables(self) -> ColourTables:
        """Its conversion to RGB."""
        found = colour_tables(self.matrix, self.full_range)
        assert found is not None
        return found

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        size = self.height, self.width
        return size if self.rotation_deg % 180 == 0 else size[::-1]


@dataclass(frozen=True)
class YuvReading:
    """Scaling and cropping pictures of one format to one spec: what is read, with which weights.

    Attributes:
        format: The pictures.
        spec: Size and crop.
    """

    format: YuvFormat
    spec: FrameSpec

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the scaled and cropped frames."""
        return self.spec.output_shape(*self.format.upright_size)

    @cached_property
    def n_bytes(self) -> int:
        """Size of a packed picture."""
        return sum(len(rows) * (right - left) for rows, left, right in self._windows)

    def pack(self, planes: Sequence[npt.NDArray[np.uint8]], out: npt.NDArray[np.uint8]) -> None:
        """Copy the rows that the filter reads, between the outermost columns that it reads.

        Args:
            planes: Y, U and V; their rows need not be contiguous.
            out: Shape (:attr:`n_bytes`,): Y, then U, then V.
        """
        start = 0
        for plane, (rows, left, right) in zip(planes, self._windows, strict=True):
            end = start + len(rows) * (right - left)
            out[start:end].reshape(len(rows), -1)[:] = plane[rows, left:right]
            start = end

    def packed_index(self) -> npt.NDArray[np.int64]:
        """Where in a packed picture the samples lie, shape (3, 4, h * w).

        The first axis is Y, U, V, the second the four neighbours of a pixel.
        """
        start, found = 0, []
        for shift, (rows, left, right) in zip((0, 1, 1), self._windows, strict=True):
            row = np.searchsorted(rows, self._rows >> shift)
            found.append(start + row * (right - left) + (self._columns >> shift) - left)
            start += len(rows) * (right - left)
        return self._flat(found)

    def strided_index(self, strides: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
        """As :meth:`packed_index`, but in the memory of each plane by itself.

        Args:
            strides: Of Y, U and V: bytes from a row to the next, and from a sample to the next.
        """
        by_plane = zip((0, 1, 1), strides, strict=True)
        return self._flat(
            [
                (self._rows >> shift) * row + (self._columns >> shift) * sample
                for shift, (row, sample) in by_plane
            ]
        )

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """The weights of a pixel's four neighbours, shape (4, h * w), their sum 1."""
        (_, down), (_, right) = self._upright
        both = down[:, None, :, None] * right[None, :, None, :]
        return both.reshape(4, -1).astype(np.float32)

    def _flat(self, found: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        shape = (2, 2, *self.shape)
        return np.stack([np.broadcast_to(index, shape).reshape(4, -1) for index in found])

    @cached_property
    def _upright(self) -> tuple[tuple[npt.NDArray[Any], npt.NDArray[Any]], ...]:
        """Neighbours and weights along both axes of the upright picture, (2, h) and (2, w)."""
        sizes = self.format.upright_size
        scaled = self.spec.resize.target(*sizes)
        origin = self.spec.crop_origin(*scaled)
        return tuple(
            _neighbours(size, target, first, count)
            for size, target, first, count in zip(sizes, scaled, origin, self.shape, strict=True)
        )

    @cached_property
    def _rows(self) -> npt.NDArray[np.int64]:
        """Rows of the coded picture, broadcasting to (2, 2, h, w)."""
        return self._coded[0]

    @cached_property
    def _columns(self) -> npt.NDArray[np.int64]:
        return self._coded[1]

    @cached_property
    def _coded(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        (down, _), (right, _) = self._upright
        height, width = self.format.upright_size
        turns = self.format.rotation_deg // 90
        # Turned by 180 degrees both axes run backwards; a quarter turn exchanges them.
        rows, columns = down[:, None, :, None], right[None, :, None, :]
        if turns == 1:
            rows, columns = width - 1 - columns, rows
        elif turns == 2:
            rows, columns = height - 1 - rows, width - 1 - columns
        elif turns == 3:
            rows, columns = columns, height - 1 - rows
        if self.format.mirrored:
            columns = self.format.width - 1 - columns
        return rows, columns

    @cached_property
    def _windows(self) -> tuple[tuple[npt.NDArray[np.int64], int, int], ...]:
        """Of Y, U and V: the rows that are read, and the columns between the outermost."""
        luma, chroma = (
            (
                np.unique(self._rows >> shift),
                int(self._columns.min()) >> shift,
                (int(self._columns.max()) >> shift) + 1,
            )
            for shift in (0, 1)
        )
        return luma, chroma, chroma


def _neighbours(
    size: int, scaled: int, first: int, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Of ``count`` pixels from ``first`` on along one scaled axis: two source pixels, two weights.

    Pixel centres are aligned, and beyond the outermost centres the outermost pixel is repeated.
    """
    centres = (np.arange(first, first + count) + 0.5) * (size / scaled) - 0.5
    centres = centres.clip(0, size - 1)
    before = np.floor(centres).astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    share = centres - before
    return np.stack([before, after]), np.stack([1 - share, share])
