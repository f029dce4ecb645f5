"""What a :class:`~tspcli.video.decode_pool.DecodePool` reports, in order for each video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy.typing as npt

from tspcli.errors import VideoError
from tspcli.video.inputs import VideoFile
from tspcli.video.source import VideoInfo


@dataclass(frozen=True)
class Opened:
    """A video was opened; its frames follow.

    Attributes:
        job: The video.
        info: What its header says.
        stamp: Size in bytes and time of change of its file, as they were before it was opened.
    """

    job: VideoFile
    info: VideoInfo
    stamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class SharedPlace:
    """Where frames lie in memory that processes share.

    Attributes:
        memory: Number of the memory, never used again within this process.
        file_descriptor: The anonymous file, open as long as the decode process lives.
        offset_bytes: Where the pixels begin.
    """

    memory: int
    file_descriptor: int
    offset_bytes: int


class Worked(NamedTuple):
    """When a decode process worked on some frames, on the clock of ``time.monotonic``.

    Attributes:
        process: Its id.
        began_s, ended_s: Seconds.
    """

    process: int
    began_s: float
    ended_s: float


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a video, in time order.

    Attributes:
        job: The video.
        ticks: For each frame the needed ticks that show it.
        pixels: Shape (n, h, w, 3), uint8 or float32 in 0..255; a view of shared memory that is
            valid until :meth:`release` is called, which has to happen for the decoding to go on.
        place: Where the pixels lie, for another process that maps the same memory.
        worked: When they were decoded, if that is known.
    """

    job: VideoFile
    ticks: list[tuple[int, ...]]
    pixels: npt.NDArray[Any]
    place: SharedPlace = field(repr=False)
    _give_back: Callable[[Frames], None] = field(repr=False)
    worked: Worked | None = None

    def release(self) -> None:
        """Give the memory back. Callable from any thread; more than once is harmless."""
        self._give_back(self)


@dataclass(frozen=True)
class Finished:
    """All frames of a video came.

    Attributes:
        job: The video.
        n_ticks: Ticks of the whole video, for ``Sampling.n_clips``.
        decoder: Which decoder it was.
        warnings: What could not be decoded, and the like.
        start_s, end_s: When the first frame is shown and when the last one's display ends.
        n_frames: Frames of the source.
        n_decoded: Frames decoded; fewer where unneeded ones could be left out.
    """

    job: VideoFile
    n_ticks: int
    decoder: str
    warnings: tuple[str, ...]
    start_s: Fraction
    end_s: Fraction
    n_frames: int
    n_decoded: int


@dataclass(frozen=True)
class Failed:
    """A video that no decoder could decode. What came of it before is void."""

    job: VideoFile
    error: VideoError


@dataclass(frozen=True)
class Restarted:
    """A decoder failed on a video: what came of it is void, the next one starts afresh.

    Attributes:
        job: The video.
        decoder: The decoder that follows.
        why: What happened to the one before.
    """

    job: VideoFile
    decoder: str
    why: str


@dataclass(frozen=True)
class Idle:
    """Every video that was given has ended; more may come."""


@dataclass(frozen=True)
class Woken:
    """Somebody called :meth:`tspcli.video.decode_pool.DecodePool.wake`."""


Event = Opened | Frames | Finished | Failed | Restarted
