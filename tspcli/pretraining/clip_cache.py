"""The clip cache: every sampled frame of every video, in a form from which any clip is read fast.

One file per video (see :mod:`tspcli.pretraining.clip_cache_file`). A killed build resumes where it
stopped.

Codecs: ``raw`` (exact; 3.55 GB per hour of 128 x 171 video at 15 frames per second), ``webp``
(exact, about 1.3 GB, slow to write), ``jpeg`` (about 0.7 GB; no channel of any pixel is off by more
than :data:`tspcli.pretraining.clip_cache_file.MAX_ERROR` of 255, because frames that would be are
stored exactly, which takes lossless WebP).
"""

from __future__ import annotations

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tspcli.core.files import replacing
from tspcli.core.run_dir import require_same
from tspcli.core.text import MALFORMED, parse_json
from tspcli.errors import TrainingError, VideoError
from tspcli.pretraining.clip_cache_file import (
    CODECS,
    JPEG_QUALITY,
    Bytes,
    CachedVideo,
    CacheWriter,
    Pixels,
    encode_frame,
)
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec

FILE_SUFFIX = ".clips"
_RELATIVE_SIZE = {"raw": 1.0, "webp": 0.37, "jpeg": 0.2}
"""Measured on real videos."""
_OPEN_FILES = 64
_ENCODE_THREADS = 4


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
    codec: str = "raw"

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

    def expected_bytes(self, video_s: float) -> int:
        """About how much some seconds of video take; exact up to a frame for ``raw``."""
        # Where the width follows from the video's shape, that of most videos.
        height, width = self.spec.output_shape(1080, 1920)
        frames = video_s * float(self.sampling.frame_rate)
        return round(frames * height * width * 3 * _RELATIVE_SIZE[self.codec])


def cache_file(folder: Path, video: Path) -> Path:
    """Where a video's frames lie."""
    return folder / f"{video.name}{FILE_SUFFIX}"


class CachedClips:
    """A :class:`tspcli.pretraining.clip_cache_file.ClipReader` over cache files.

    Args:
        paths: The cache files.
        clip_length: Frames per clip.
    """

    def __init__(self, paths: Sequence[Path], clip_length: int) -> None:
        self.paths = list(paths)
        self.clip_length = clip_length
        self._open: OrderedDict[int, CachedVideo] = OrderedDict()
        self._clip: Pixels | None = None

    def read(self, video: int, start_sample: int) -> Pixels:
        """The clip of a video from a sample on, shape (clip_length, height, width, 3).

        It is valid until the next one is read.

        Raises:
            VideoError: If the video ended more than a clip before.
            TrainingError: If the cache is damaged.
        """
        cached = self._open.pop(video, None)
        if cached is None:
            cached = CachedVideo(self.paths[video])
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open[video] = cached
        if start_sample >= cached.n_samples + self.clip_length:
            rate = Fraction(cached.footer["settings"]["frame_rate"])
            end_s, start_s = float(cached.n_samples / rate), float(start_sample / rate)
            raise VideoError(
                "damaged", f"its frames end at {end_s:.2f} s, but {start_s:.2f} s was requested"
            )
        self._clip = cached.read(start_sample, self.clip_length, self._clip)
        return self._clip

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict(), "_clip": None}


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
        """Size per hour of video."""
        return self.n_bytes / 1e9 / (self.video_s / 3600) if self.video_s else 0.0


def check_cache_folder(folder: Path, settings: CacheSettings) -> None:
    """Make the folder of a cache, or see that it was made with the same settings.

    Raises:
        TrainingError: If it was not, with the difference.
    """
    about = folder / "cache.json"
    if about.exists():
        try:
            stored = dict(parse_json(about.read_text()))
        except MALFORMED as error:
            raise TrainingError(
                f"{about} is damaged ({type(error).__name__}: {error}).",
                remedy="Delete the cache; it is built again. Or give another --cache.",
                path=about,
            ) from error
        require_same(
            stored,
            settings.to_dict(),
            f"The clip cache {folder}",
            remedy="Give these settings (--cache-codec for the codec), another --cache, or "
            "delete this one.",
        )
        return
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"The --cache {folder} is a file.", path=folder)
    with replacing(about) as aside:
        aside.write_text(json.dumps(settings.to_dict(), indent=1) + "\n")


def check_space(folder: Path, settings: CacheSettings, video_s: float) -> int:
    """See that a cache has room for some more seconds of video.

    Returns:
        The bytes that they will take, about.

    Raises:
        TrainingError: If the disk has less than that.
    """
    needed, free = settings.expected_bytes(video_s), shutil.disk_usage(folder).free
    if needed > free:
        small = replace(settings, codec="jpeg").expected_bytes(video_s)
        raise TrainingError(
            f"{video_s / 3600:.1f} hours of video as {settings.codec} take about "
            f"{needed / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} GB free.",
            remedy=f"Give a --cache on another disk, or --cache-codec jpeg ({small / 1e9:.1f} GB).",
        )
    return needed


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
        workers: Decode processes; None means one per core.
        decoder: ``auto`` or a decoder's name.
        on_video: Called with each video's name, how many are done and how many there are.

    Raises:
        TrainingError: If the folder was made with other settings.
        StoreError: If the disk is full.
    """
    from tspcli.video import DecodePool, Failed, Finished, Frames, Opened, Restarted
    from tspcli.video.inputs import VideoFile

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
                        writers[name] = CacheWriter(
                            cache_file(folder, event.job.path), settings.to_dict()
                        )
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
    """Whether a cache file is there, complete, and of this very video."""
    if not file.exists():
        return False
    try:
        cached = CachedVideo(file)
    except TrainingError:
        file.unlink()
        return False
    cached.close()
    return bool(cached.footer.get("source_bytes") == video.stat().st_size)
