"""Small work on pictures of frames; the frames themselves come from the caller."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

from tspcli.features.resampling import linear, roi_align


def cut_to(rgb: npt.NDArray[np.uint8], aspect: float) -> npt.NDArray[np.uint8]:
    """The middle of a picture, cut to ``aspect`` (width over height)."""
    height, width = rgb.shape[:2]
    if width > aspect * height:
        keep = max(1, round(aspect * height))
        left = (width - keep) // 2
        return rgb[:, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return rgb[top : top + keep]


def shrink(rgb: npt.NDArray[np.uint8], height: int) -> npt.NDArray[np.uint8]:
    """A picture scaled to ``height`` pixels, antialiased."""
    tall, wide = rgb.shape[:2]
    if tall <= height:
        return rgb
    width = max(1, round(wide * height / tall))
    columns = rgb.reshape(tall, wide * 3)
    lines = roi_align(tall, height).apply(columns.astype(np.float32))
    across = lines.reshape(height, wide, 3).transpose(1, 0, 2).reshape(wide, height * 3)
    taps = roi_align(wide, width) if wide > width else linear(wide, width)
    scaled = taps.apply(across).reshape(width, height, 3).transpose(1, 0, 2)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def png_data_uri(rgb: npt.NDArray[np.uint8]) -> str:
    """A picture, uint8, shape (height, width, 3), as a ``data:`` URI."""
    height, width = rgb.shape[:2]
    lines = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    lines[:, 1:] = rgb.reshape(height, -1)
    # Filter 1 (difference to the left neighbour) halves what zlib makes of a photograph.
    lines[:, 0] = 1
    lines[:, 4:] -= rgb.reshape(height, -1)[:, :-3]
    body = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(body)
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
