"""Clips of one video at random: from its file in the clip cache, or straight from the video.

A file of the cache holds the frames one after the other, then the table of where each begins, then
a sealed JSON footer, so that any clip is one read of neighbouring bytes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tspcli.core.sealed_file import SealedWriter, read_footer
from tspcli.core.text import MALFORMED
from tspcli.errors import TrainingError, VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec
from tspcli.video import VideoSource, open_source, read_clip

CODECS = ("raw", "webp", "jpeg")
JPEG_QUALITY = 95
MAX_ERROR = 32
"""The most by which a pixel's channel may differ from the decoded frame's, of 255 (``jpeg``)."""
_MAGIC = b"TSPCLIP1"
_MAX_SIDE = 1 << 15
_OPEN_VIDEOS = 4

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]


# --- frames ---------------------------------------------------------------------------------------


def encode_frame(pixels: Pixels, codec: str) -> tuple[Bytes, int]:
    """One frame as bytes, and by how much its worst channel is off, of 255.

    Args:
        pixels: (height, width, 3) RGB.
        codec: One of :data:`CODECS`.
    """
    if codec == "raw":
        return np.ascontiguousarray(pixels).reshape(-1), 0
    import cv2

    bgr = pixels[..., ::-1]
    if codec == "jpeg":
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling])
        back = cv2.imdecode(data, cv2.IMREAD_COLOR)
        error = MAX_ERROR + 1
        if done and back is not None:
            error = int(cv2.absdiff(back, np.ascontiguousarray(bgr)).max())
        if error <= MAX_ERROR:
            return data.reshape(-1), error
    # Above 100 OpenCV's WebP is lossless.
    done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 101])
    if not done:
        raise VideoError("unsupported", "OpenCV cannot write WebP images")
    return data.reshape(-1), 0


def decode_frame(data: Bytes, codec: str, out: Pixels) -> None:
    """Write the pixels of an encoded frame into ``out``, (height, width, 3) RGB."""
    if codec == "raw":
        out[...] = data.reshape(out.shape)
        return
    import cv2

    # OpenCV has known this since 4.11; without it every pixel's channels are swapped twice.
    direct: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
    try:
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR if direct is None else direct)
    except cv2.error:
        frame = None
    if frame is None or frame.shape != out.shape:
        raise ValueError("a frame is damaged")
    out[...] = frame if direct is not None else frame[..., ::-1]


# --- writing --------------------------------------------------------------------------------------


class CacheWriter:
    """Writes the frames of one video, in order.

    Args:
        path: The file; it appears when all is written.
        settings: Of the cache, as plain values, for the footer.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._file = SealedWriter(path, _MAGIC)
        self._settings = dict(settings)
        self._offsets = [0]
        self._shape: tuple[int, ...] | None = None
        self._max_error = 0

    def append(self, data: Bytes, error: int, shape: tuple[int, ...]) -> None:
        """Add one encoded frame."""
        if self._shape is None:
            self._shape = shape
        self._file.write(data.data)
        self._offsets.append(self._offsets[-1] + data.nbytes)
        self._max_error = max(self._max_error, error)

    @property
    def n_frames(self) -> int:
        """Frames so far."""
        return len(self._offsets) - 1

    def commit(self, extra: dict[str, Any]) -> None:
        """Finish the file."""
        if self._shape is None:
            self.abort()
            raise VideoError("no-frames", path=self._file.path)
        self._file.write(np.asarray(self._offsets, dtype="<u8").tobytes())
        self._file.commit(
            {
                **extra,
                "settings": self._settings,
                "shape": list(self._shape),
                "n_frames": self.n_frames,
                "max_error": self._max_error,
            }
        )

    def abort(self) -> None:
        """Discard the video."""
        self._file.abort()


# --- reading --------------------------------------------------------------------------------------


class CachedVideo:
    """The frames of one video in the cache.

    Attributes:
        n_samples: Sampled frames.
        shape: (height, width, 3).
        footer: The settings and facts that the file holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be read: {error.strerror}.",
                remedy="Build the cache again.",
                path=path,
            ) from error
        try:
            self.footer, self._offsets = _read_footer(self._handle)
            self.codec = str(self.footer["settings"]["codec"])
            self.shape = tuple(int(v) for v in self.footer["shape"])
            if len(self.shape) != 3 or not all(0 < size <= _MAX_SIDE for size in self.shape):
                raise ValueError(f"frames of {self.shape}")
        except MALFORMED as error:
            os.close(self._handle)
            raise TrainingError(
                f"{path} is an incomplete or damaged cache file ({error}).",
                remedy="Delete it; it is built again.",
                path=path,
            ) from error
        self.n_samples = len(self._offsets) - 1

    def read(self, start: int, count: int, out: Pixels | None = None) -> Pixels:
        """``count`` frames from a sample on; after the last, the last is repeated.

        Args:
            start: First frame.
            count: How many.
            out: Where to write them; memory that was used before is several times faster than new.

        Returns:
            (count, height, width, 3) uint8 RGB.

        Raises:
            TrainingError: If the file is damaged.
        """
        first = min(max(start, 0), self.n_samples - 1)
        last = min(first + count, self.n_samples)
        begin, end = int(self._offsets[first]), int(self._offsets[last])
        shape = (count, *self.shape)
        frames = np.empty(shape, dtype=np.uint8) if out is None or out.shape != shape else out
        read = frames[: last - first]
        try:
            if self.codec == "raw":
                if os.preadv(self._handle, [read.reshape(-1).data], begin) < read.nbytes:
                    raise ValueError("the file ends before them")
            else:
                data = np.frombuffer(os.pread(self._handle, end - begin, begin), dtype=np.uint8)
                if len(data) < end - begin:
                    raise ValueError("the file ends before them")
                places = self._offsets[first : last + 1] - begin
                for out, (place, following) in zip(read, pairwise(places), strict=True):
                    decode_frame(data[place:following], self.codec, out)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self.path}, frames {first} to {last - 1}: {error}.",
                remedy="Delete it; it is built again.",
            ) from error
        frames[last - first :] = frames[last - first - 1]
        return frames

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _read_footer(handle: int) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    found = read_footer(handle, _MAGIC)
    if found is None:
        raise ValueError("it does not end as a cache file does")
    footer, footer_at = found
    table_bytes = (int(footer["n_frames"]) + 1) * 8
    table_at = footer_at - table_bytes
    offsets = np.frombuffer(os.pread(handle, table_bytes, table_at), dtype="<u8").astype(np.int64)
    # Compared and not subtracted: the difference of damaged ones may leave the range of numbers.
    in_order = len(offsets) > 1 and offsets[0] >= 0 and (offsets[:-1] <= offsets[1:]).all()
    if not in_order or offsets[-1] != table_at:
        raise ValueError("its length does not fit its frames")
    return footer, offsets


# --- any clip of several videos -------------------------------------------------------------------


class ClipReader(Protocol):
    """Random access to clips of some videos; picklable, so that loader processes can have it."""

    def read(self, video: int, start_sample: int) -> npt.NDArray[np.uint8]:
        """The clip of a video from a sample on, shape (clip_length, height, width, 3) uint8 RGB.

        It is valid until the next one is read.
        """


class VideoClips:
    """Clips read by seeking in the videos and decoding from the key frame before.

    Args:
        paths: The videos.
        sampling: Rate and length of clips.
        spec: Size of the frames, without a crop.
        decoder: ``auto`` or a decoder's name.
    """

    def __init__(
        self, paths: Sequence[Path], sampling: Sampling, spec: FrameSpec, decoder: str = "auto"
    ) -> None:
        self.paths = list(paths)
        self.sampling = sampling
        self.spec = spec
        self.decoder = decoder
        self._open: OrderedDict[int, VideoSource] = OrderedDict()

    def read(self, video: int, start_sample: int) -> npt.NDArray[np.uint8]:
        """See :class:`ClipReader`.

        Raises:
            VideoError: If the video cannot be decoded there, or ended more than a clip before.
        """
        start_s = Fraction(self.sampling.sample_tick(start_sample)) / self.sampling.grid_rate
        clip_s = self.sampling.clip_length / self.sampling.frame_rate
        return read_clip(self._source(video), start_s, self.sampling, self.spec, late_s=clip_s)

    def close(self) -> None:
        """Close the videos."""
        while self._open:
            self._open.popitem()[1].close()

    def _source(self, video: int) -> VideoSource:
        source = self._open.pop(video, None)
        if source is None:
            source = open_source(self.paths[video], self.decoder, threads=1)
            while len(self._open) >= _OPEN_VIDEOS:
                self._open.popitem(last=False)[1].close()
        self._open[video] = source
        return source

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}
