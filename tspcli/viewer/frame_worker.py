"""The process that decodes frames for the page, one at a time, and may be killed at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tspcli.core.child_process import die_with_parent, limit_memory
from tspcli.core.text import first_line
from tspcli.errors import VideoError
from tspcli.video import open_source
from tspcli.video.source import Frame, VideoSource

_MEMORY_BYTES = 2 << 30
_AHEAD_S = 3
"""A frame that lies at most so far ahead is decoded up to; seeking would take as long."""


class Wanted(NamedTuple):
    """A request for a frame.

    Attributes:
        path: The video.
        time_s: Seconds after its first frame.
        height: The most lines of the picture.
    """

    path: str
    time_s: float
    height: int


class Shown(NamedTuple):
    """The answer.

    Attributes:
        jpeg: The picture.
        start_s: When the frame begins to be shown, in seconds after the first frame.
        end_s: When the next one is; None after the last.
    """

    jpeg: bytes
    start_s: float
    end_s: float | None


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Answer each :class:`Wanted` by a :class:`Shown`, or by the reason and words of an error."""
    die_with_parent(lifeline_fd)
    limit_memory(_MEMORY_BYTES)
    connection = Connection(socket_fd)
    reader: _Reader | None = None
    with suppress(EOFError, OSError):
        while True:
            wanted = Wanted(*connection.recv())
            try:
                if reader is None or reader.path != wanted.path:
                    if reader is not None:
                        reader.source.close()
                    reader = _Reader(wanted.path)
                connection.send(tuple(reader.show(wanted.time_s, wanted.height)))
            except VideoError as error:
                reader = None
                connection.send((error.reason, error.detail))
            except Exception as error:  # whatever a decoder raises is an answer, too
                reader = None
                connection.send(("damaged", first_line(error)))
    os._exit(0)


class _Reader:
    """One open video, and the frame that is shown with the one after it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.source: VideoSource = open_source(path)
        self._origin_s = self.source.first_pts_s
        self._frames: Iterator[Frame] = iter(())
        self._next: Frame | None = None
        self._pts_s = Fraction(0)
        self._picture: npt.NDArray[np.uint8] | None = None

    def show(self, time_s: float, height: int) -> Shown:
        """The frame that is shown at a time."""
        at_s = self._origin_s + Fraction(time_s).limit_denominator(100_000)
        if self._picture is None or not self._pts_s <= at_s <= self._pts_s + _AHEAD_S:
            self._frames = self.source.frames(start_s=at_s)
            self._next = next(self._frames)
            self._step()
        while self._next is not None and self._next.pts_s <= at_s:
            self._step()
        assert self._picture is not None
        end_s = None if self._next is None else float(self._next.pts_s - self._origin_s)
        return Shown(_jpeg(self._picture, height), float(self._pts_s - self._origin_s), end_s)

    def _step(self) -> None:
        assert self._next is not None
        self._pts_s = self._next.pts_s
        # Its picture is valid only until the next frame is taken.
        self._picture = self._next.rgb().copy()
        self._next = next(self._frames, None)


def _jpeg(rgb: npt.NDArray[np.uint8], most_lines: int) -> bytes:
    height, width = rgb.shape[:2]
    if height > most_lines:
        size = (max(1, round(width * most_lines / height)), most_lines)
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise ValueError(f"a frame of {width} x {height} pixels cannot be written as JPEG")
    return data.tobytes()
