"""What every decoder offers: facts about a video, and its frames in presentation order."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tspcli.core.files import absolute
from tspcli.errors import VideoError
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.yuv import YuvFormat, YuvReading

MAX_PIXELS = 1 << 26
"""The most pixels that a frame may have (8192 x 8192, twice those of 8K video): a damaged header
may announce frames that take all memory."""

Wanted = Callable[[Fraction, Fraction], bool]
"""Called with the times of a frame and of the next one in seconds; returns whether the picture of
the frame is needed."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video stream; decoding may contradict it.

    Attributes:
        path: The file.
        width, height: Size of the frames in pixels, after rotation.
        rotation_deg: Degrees clockwise by which coded frames are rotated: 0, 90, 180 or 270.
        mirrored: Whether coded frames are mirrored left to right before they are rotated.
        fps: Average frame rate, or None.
        duration_s: Announced duration in seconds, or None.
        n_frames: Announced number of frames, or None.
        start_s: Announced time of the first frame in seconds, or None.
        origin_s: When the container starts, in seconds. ffmpeg counts time from here, which decides
            how times are rounded where the frame rate does not divide the grid's.
        time_base: Seconds per unit of the stream's timestamps.
        stream_index: The index of the stream in the container.
        codec, pixel_format, container: FFmpeg's names.
        interlaced: Whether the stream is marked as interlaced.
    """

    path: str
    width: int
    height: int
    rotation_deg: int
    fps: Fraction | None
    duration_s: Fraction | None
    n_frames: int | None
    start_s: Fraction | None
    origin_s: Fraction
    time_base: Fraction
    stream_index: int
    codec: str
    pixel_format: str | None
    container: str
    interlaced: bool = False
    mirrored: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain values; fractions become exact strings."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {n: str(v) if isinstance(v, Fraction) else v for n, v in values}


class YuvPicture(NamedTuple):
    """A picture as it is coded: 8-bit 4:2:0.

    Attributes:
        format: What becomes of its samples.
        planes: Y, U and V, uint8; their rows need not be contiguous.
    """

    format: YuvFormat
    planes: tuple[npt.NDArray[np.uint8], ...]


class Frame:
    """One frame: its time, and its picture when it is asked for.

    Attributes:
        pts_s: Presentation time in seconds, exact, on the file's own clock.
        duration_s: How long the frame is shown in seconds, or None if the file does not say.
    """

    __slots__ = ("duration_s", "pts_s")

    def __init__(self, pts_s: Fraction, duration_s: Fraction | None) -> None:
        self.pts_s = pts_s
        self.duration_s = duration_s

    @property
    def has_picture(self) -> bool:
        """Whether :meth:`rgb` works; frames that were not wanted may have no picture."""
        return False

    def rgb(self) -> npt.NDArray[np.uint8]:
        """The picture, uint8, shape (height, width, 3), upright.

        It is valid until the next frame is taken from the source.

        Raises:
            VideoError: If this frame cannot be decoded.
            LookupError: If the caller's ``wanted`` left this frame out.
        """
        raise LookupError(f"the frame at {float(self.pts_s):.3f} s was left out by `wanted`")

    def yuv(self) -> YuvPicture | None:
        """The coded picture, if :func:`tspcli.sampling.yuv.to_rgb` gives the pixels of :meth:`rgb`.

        It is valid until the next frame is taken from the source. None if it is coded otherwise, or
        the decoder does not give it.
        """
        return None

    def samples(self, reading: YuvReading) -> Any:
        """What a reading reads of the picture, on the GPU that decoded it.

        Of sources that have a :attr:`VideoSource.surface`.

        Returns:
            A torch tensor (3 * 4 * h * w,), uint8, in the order of
            :meth:`~tspcli.sampling.yuv.YuvReading.packed_index`.

        Raises:
            VideoError: As :meth:`rgb`.
        """
        raise LookupError("this decoder leaves no frame on a GPU")

    def scaled(self, spec: FrameSpec, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The picture scaled and cropped, shape (h, w, 3), with the dtype of ``spec``.

        Args:
            spec: Size, crop and dtype.
            out: Where to write. Its shape has precedence over the one that ``spec`` gives for this
                frame, so that a video whose frames change size stays one series.
        """
        from tspcli.video.resize import resize_frame

        return resize_frame(self.rgb(), spec, out=out)


class VideoSource(ABC):
    """One video, opened by one decoder.

    A subclass takes a path and the keyword ``threads``, and ``device`` if its table entry says
    ``on_gpu``; it raises a VideoError with a reason if it cannot open the file.

    Attributes:
        decoder: The decoder's name.
        info: What the file says about its video stream.
        n_decoded: Number of pictures decoded so far.
        warnings: What went wrong without ending the video, such as
            ``"damaged: 3 packets could not be decoded"``; complete once the frames are exhausted.
        surface: The format of pictures that stay on the GPU that decodes them; None elsewhere.
    """

    decoder: str
    info: VideoInfo
    n_decoded: int
    warnings: list[str]
    surface: YuvFormat | None = None

    @classmethod
    def facts(cls) -> dict[str, Any]:
        """Load the libraries that the decoder needs and describe them, for ``tsp doctor``.

        Returns:
            Plain values: ``version``, perhaps ``codecs``.

        Raises:
            Exception: Whatever keeps them from being loaded.
        """
        return {}

    @abstractmethod
    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        """The frames in presentation order.

        Args:
            start_s: Begin with the frame shown at this time, in seconds on the file's clock; None
                begins with the first.
            wanted: Which frames need a picture. The others come as well, so that their times are
                known, but may have none.

        Raises:
            VideoError: ``no-frames`` if nothing can be decoded.
        """

    @cached_property
    def first_pts_s(self) -> Fraction:
        """The time of the first frame in seconds, on the file's clock."""
        return next(iter(self.frames())).pts_s

    @abstractmethod
    def close(self) -> None:
        """Release the file and the decoder. Calling it again does nothing."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def check_file(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file that can be read.

    It is absolute so that FFmpeg does not take a name such as ``concat:a`` for a protocol.

    Raises:
        VideoError: ``missing``, ``unreadable`` (no permission, not a regular file) or ``empty``.
    """
    name = absolute(path)
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            # Listed as a video because it could not be listed as a folder: that error is raised.
            os.scandir(name).close()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("unreadable", "this is not a regular file", path=path)
        with open(name, "rb") as file:
            first = file.read(1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoError("missing", path=path) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError("unreadable", f"cannot be read: {reason}", path=path) from error
    if not first:
        raise VideoError("empty", path=path)
    return name


def check_size(width: int, height: int, path: str) -> None:
    """Refuse frames that would take all memory.

    Raises:
        VideoError: ``unsupported`` if a frame has more than :data:`MAX_PIXELS` pixels.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(
            "unsupported",
            f"frames of {width} x {height} pixels are above the limit of {MAX_PIXELS} pixels",
            path=path,
        )


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Size in bytes and modification time (ns) of a file; None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def looks_like_mp4(path: str) -> bool:
    """Whether the file starts as an MP4 or QuickTime file does."""
    with Path(path).open("rb") as file:
        return file.read(12)[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
