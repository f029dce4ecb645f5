"""FFmpeg's conversion of decoded frames to RGB, as PyAV calls it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from tspcli.sampling.yuv import colour_tables, to_rgb

# FFmpeg's own default filter for chroma planes of other sizes than 4:2:0.
_CHROMA_FILTER = "BICUBIC"
FULL_RANGE = 2
"""FFmpeg's number of a colour range that takes all values."""
# The width is no multiple of a processor's vector, so that a remainder is tried as well.
_TRIED = 38, 301


@lru_cache
def converts_by_tables(matrix: int, full_range: bool) -> bool:
    """Whether this machine's swscale gives the pixels of :func:`~tspcli.sampling.yuv.to_rgb`.

    It is tried on noise: FFmpeg has a conversion for each kind of processor, and not all of them
    round alike.
    """
    tables = colour_tables(matrix, full_range)
    if tables is None:
        return False
    height, width = _TRIED
    picture = av.VideoFrame(width, height, "yuv420p")
    picture.colorspace, picture.color_range = matrix, FULL_RANGE if full_range else 1
    random = np.random.default_rng(0)
    for plane in picture.planes:
        rows_of(plane)[:] = random.integers(0, 256, (plane.height, plane.line_size), dtype=np.uint8)
    luma, *chroma = (rows_of(plane) for plane in picture.planes)
    blue, red = (plane.repeat(2, 0).repeat(2, 1)[:, :width] for plane in chroma)
    found = rows_of(to_rgb24(VideoReformatter(), picture).planes[0])[:, : 3 * width]
    expected = to_rgb(luma[:, :width], blue, red, tables)
    return bool((found.reshape(expected.shape) == expected).all())


def rows_of(plane: Any) -> npt.NDArray[np.uint8]:
    """The bytes of a plane, row by row."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]


def to_rgb24(reformatter: Any, frame: Any) -> Any:
    """A PyAV frame converted by a ``VideoReformatter``."""
    # One thread: swscale would start a pool of threads for every frame.
    try:
        return reformatter.reformat(frame, format="rgb24", interpolation=_CHROMA_FILTER, threads=1)
    except TypeError:
        return reformatter.reformat(frame, format="rgb24", interpolation=_CHROMA_FILTER)
