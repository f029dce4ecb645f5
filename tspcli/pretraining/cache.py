"""The clip cache: every sampled frame of every video, in a form from which any clip is read fast.

One file a video: its frames one after the other, then the table of where each begins, then a JSON
footer, the footer's length and a magic word. A clip is one read of neighbouring bytes and the
decoding of its own frames; nothing is sought through. Files are written aside and renamed, so that
a killed build goes on where it stopped.

Codecs: ``raw`` (exact, 3.5 GB an hour of 128 x 171 video at 15 frames a second), ``webp`` (exact,
about 1.3 GB, slow to write), ``jpeg`` (about 0.65 GB; no channel of any pixel is off by more than
:data:`MAX_ERROR` of 255, because frames that would be are stored exactly).
"""

from __future__ import annotations

import json
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tspcli.config import FrameSpec
from tspcli.errors import TrainingError, VideoError
from tspcli.features.atomic import aside_name, explain_write_errors, sync_folder, write_aside
from tspcli.features.metadata import canonical_json
from tspcli.timeline import Sampling

CODECS = ("jpeg", "webp", "raw")
JPEG_QUALITY = 95
MAX_ERROR = 32
"""The most by which a pixel's channel may differ from the decoded frame's, of 255 (``jpeg``)."""
FILE_SUFFIX = ".clips"
_MAGIC = b"TSPCLIP1"
_TAIL = struct.Struct("<Q8s")
_OPEN_FILES = 64
_ENCODE_THREADS = 4

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CacheSettings:
    """What the frames of a cache depend on.

    Attributes:
        sampling: Frame rate and grid; clip length and stride make no difference.
        spec: Size of the frames.
        codec: One of :data:`CODECS`.
    """

    sampling: Sampling
    spec: FrameSpec
    codec: str = "jpeg"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise TrainingError(
                f"There is no cache codec {self.codec!r}.", remedy=f"Use {', '.join(CODECS)}."
            )
        if not self.sampling.is_regular:
            raise TrainingError(
                f"The clip cache needs a frame rate that divides {self.sampling.grid_rate}; "
                f"{self.sampling.frame_rate} does not.",
                remedy="Choose such a rate, or read straight from the videos.",
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        size = {k: v for k, v in vars(self.spec.resize).items() if v is not None}
        return {
            "version": 1,
            "frame_rate": str(self.sampling.frame_rate),
            "grid_rate": str(self.sampling.grid_rate),
            "resize": size,
            "codec": self.codec,
            "quality": JPEG_QUALITY if self.codec == "jpeg" else None,
        }


def cache_file(folder: Path, video: Path) -> Path:
    """Where a video's frames lie."""
    return folder / f"{video.name}{FILE_SUFFIX}"


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
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR if direct is None else direct)
    if frame is None or frame.shape != out.shape:
        raise ValueError("a frame is damaged")
    out[...] = frame if direct is not None else frame[..., ::-1]


# --- writing --------------------------------------------------------------------------------------


class CacheWriter:
    """Writes the frames of one video, in order."""

    def __init__(self, path: Path, settings: CacheSettings) -> None:
        self._path = path
        self._settings = settings
        self._aside = aside_name(path)
        self._offsets = [0]
        self._shape: tuple[int, ...] | None = None
        self._max_error = 0
        with explain_write_errors(path):
            self._file: BinaryIO = open(self._aside, "xb")  # noqa: SIM115 (closed by both ends)

    def append(self, data: Bytes, error: int, shape: tuple[int, ...]) -> None:
        """Add one encoded frame."""
        if self._shape is None:
            self._shape = shape
        with explain_write_errors(self._path):
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
            raise VideoError("no-frames", path=self._path)
        footer = {
            **extra,
            "settings": self._settings.to_dict(),
            "shape": list(self._shape),
            "n_frames": self.n_frames,
            "max_error": self._max_error,
        }
        text = canonical_json(footer).encode()
        with explain_write_errors(self._path):
            self._file.write(np.asarray(self._offsets, dtype="<u8").tobytes())
            self._file.write(text + _TAIL.pack(len(text), _MAGIC))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._aside, self._path)
            sync_folder(self._path.parent)

    def abort(self) -> None:
        """Forget the video."""
        self._file.close()
        self._aside.unlink(missing_ok=True)


# --- reading --------------------------------------------------------------------------------------


class CachedVideo:
    """The frames of one video in the cache.

    Attributes:
        n_samples: Sampled frames.
        shape: (height, width, 3).
        footer: What the file says of itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be read: {error.strerror}.", remedy="Build the cache again."
            ) from error
        try:
            self.footer, self._offsets = _read_footer(self._handle)
            self.codec = str(self.footer["settings"]["codec"])
            self.shape = tuple(int(v) for v in self.footer["shape"])
        except (ValueError, KeyError, TypeError, struct.error) as error:
            os.close(self._handle)
            raise TrainingError(
                f"{path} is no whole cache file ({error}).", remedy="Delete it; it is built again."
            ) from error
        self.n_samples = len(self._offsets) - 1

    def read(self, start: int, count: int) -> Pixels:
        """``count`` frames from a sample on; after the last, the last is repeated.

        Returns:
            (count, height, width, 3) uint8 RGB.
        """
        first = min(max(start, 0), self.n_samples - 1)
        last = min(first + count, self.n_samples)
        begin, end = int(self._offsets[first]), int(self._offsets[last])
        data = np.frombuffer(os.pread(self._handle, end - begin, begin), dtype=np.uint8)
        frames = np.empty((count, *self.shape), dtype=np.uint8)
        if self.codec == "raw" and len(data) == end - begin:
            frames[: last - first] = data.reshape(last - first, *self.shape)
        else:
            try:
                for i in range(first, last):
                    piece = data[self._offsets[i] - begin : self._offsets[i + 1] - begin]
                    decode_frame(piece, self.codec, frames[i - first])
            except ValueError as error:
                raise TrainingError(
                    f"{self.path}, frame {i}: {error}.", remedy="Delete it; it is built again."
                ) from error
        frames[last - first :] = frames[last - first - 1]
        return frames

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _read_footer(handle: int) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    size = os.fstat(handle).st_size
    length, magic = _TAIL.unpack(os.pread(handle, _TAIL.size, max(size - _TAIL.size, 0)))
    if magic != _MAGIC or not 0 < length < size:
        raise ValueError("its end is not that of a cache file")
    footer_at = size - _TAIL.size - length
    footer = json.loads(os.pread(handle, length, footer_at))
    table_bytes = (int(footer["n_frames"]) + 1) * 8
    table_at = footer_at - table_bytes
    offsets = np.frombuffer(os.pread(handle, table_bytes, table_at), dtype="<u8").astype(np.int64)
    if len(offsets) < 2 or offsets[-1] != table_at:
        raise ValueError("its length does not fit its frames")
    return footer, offsets


class CachedClips:
    """A :class:`tspcli.pretraining.clips.ClipReader` over cache files.

    Args:
        paths: The cache files.
        clip_length: Frames a clip.
    """

    def __init__(self, paths: Sequence[Path], clip_length: int) -> None:
        self.paths = list(paths)
        self.clip_length = clip_length
        self._open: OrderedDict[int, CachedVideo] = OrderedDict()

    def read(self, video: int, start_sample: int) -> Pixels:
        """The clip of a video from a sample on, shape (clip_length, height, width, 3)."""
        cached = self._open.pop(video, None)
        if cached is None:
            cached = CachedVideo(self.paths[video])
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open[video] = cached
        return cached.read(start_sample, self.clip_length)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}


# --- building -------------------------------------------------------------------------------------


@dataclass
class CacheReport:
    """What a build did.

    Attributes:
        built: Videos written now.
        kept: Videos that were there.
        failed: File name to reason.
        n_bytes: Size of the files of all videos asked for.
        video_s: Seconds of video in them.
        max_error: The most by which any pixel's channel is off, of 255.
    """

    built: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    n_bytes: int = 0
    video_s: float = 0.0
    max_error: int = 0

    @property
    def gigabytes_an_hour(self) -> float:
        """Size of an hour of video."""
        return self.n_bytes / 1e9 / (self.video_s / 3600) if self.video_s else 0.0


def check_cache_folder(folder: Path, settings: CacheSettings) -> None:
    """Make the folder of a cache, or see that it was made with the same settings.

    Raises:
        TrainingError: If it was not, with the difference.
    """
    about = folder / "cache.json"
    if about.exists():
        from tspcli.pretraining.recipe import differences

        found = differences(json.loads(about.read_text()), settings.to_dict())
        if found:
            raise TrainingError(
                f"The clip cache {folder} was made with other settings: {'; '.join(found)}.",
                remedy="Give another --cache, or delete this one.",
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(about) as aside:
        aside.write_text(json.dumps(settings.to_dict(), indent=1) + "\n")


def build_cache(
    videos: Sequence[Path],
    folder: Path,
    settings: CacheSettings,
    *,
    workers: int | None = None,
    decoder: str = "auto",
    on_video: Callable[[str, int, int], None] | None = None,
) -> CacheReport:
    """Write the frames of videos into a cache, in one pass; those that are there are kept.

    Args:
        videos: The files.
        folder: Of the cache.
        settings: Of the cache; a folder made with others is refused.
        workers: Decode processes; None means one a core.
        decoder: ``auto`` or a decoder's name.
        on_video: Called with each video's name, how many are done and how many there are.

    Raises:
        TrainingError: If the folder was made with other settings.
        StoreError: If the disk is full.
    """
    from tspcli.video import DecodePool, Failed, Finished, Frames, Opened, Restarted
    from tspcli.video.probe import VideoFile

    check_cache_folder(folder, settings)
    report = CacheReport()
    todo = []
    for path in videos:
        if _is_current(cache_file(folder, path), path):
            report.kept += 1
        else:
            todo.append(VideoFile(path, path.name))
    writers: dict[str, CacheWriter] = {}
    waiting: dict[str, list[tuple[Future[tuple[Bytes, int]], int, tuple[int, ...]]]] = {}

    def drain(name: str) -> None:
        for future, repeats, shape in waiting.pop(name, []):
            data, error = future.result()
            for _ in range(repeats):
                writers[name].append(data, error, shape)

    def drop(name: str) -> None:
        waiting.pop(name, None)
        if name in writers:
            writers.pop(name).abort()

    def ended(name: str) -> None:
        if on_video is not None:
            on_video(name, report.built + report.kept + len(report.failed), len(videos))

    if todo:
        pool = DecodePool(
            todo, sampling=settings.sampling, spec=settings.spec, workers=workers, decoder=decoder
        )
        try:
            with pool, ThreadPoolExecutor(_ENCODE_THREADS) as encoders:
                for event in pool:
                    name = event.job.key
                    if isinstance(event, Opened | Restarted):
                        drop(name)
                        writers[name] = CacheWriter(cache_file(folder, event.job.path), settings)
                    elif isinstance(event, Frames):
                        drain(name)
                        waiting[name] = [
                            (
                                encoders.submit(encode_frame, pixels.copy(), settings.codec),
                                len(ticks),
                                pixels.shape,
                            )
                            for pixels, ticks in zip(event.pixels, event.ticks, strict=True)
                        ]
                        event.release()
                    elif isinstance(event, Failed):
                        drop(name)
                        report.failed[name] = event.error.detail
                        ended(name)
                    else:
                        assert isinstance(event, Finished)
                        drain(name)
                        writers.pop(name).commit(
                            {
                                "source_bytes": os.stat(event.job.path).st_size,
                                "n_ticks": event.n_ticks,
                                "decoder": event.decoder,
                                "warnings": list(event.warnings),
                            }
                        )
                        report.built += 1
                        ended(name)
        finally:
            for name in list(writers):
                drop(name)
    for path in videos:
        file = cache_file(folder, path)
        if file.exists():
            cached = CachedVideo(file)
            report.n_bytes += file.stat().st_size
            report.video_s += cached.n_samples / float(settings.sampling.frame_rate)
            report.max_error = max(report.max_error, int(cached.footer["max_error"]))
            cached.close()
    return report


def _is_current(file: Path, video: Path) -> bool:
    """Whether a cache file is there, whole, and of this very video."""
    if not file.exists():
        return False
    try:
        cached = CachedVideo(file)
    except TrainingError:
        file.unlink()
        return False
    cached.close()
    return bool(cached.footer.get("source_bytes") == video.stat().st_size)
