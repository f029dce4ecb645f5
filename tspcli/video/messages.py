"""What both ends of a decode process agree on, and the events that a decode pool yields.

Down: a :class:`WorkerSetup` once, then ``("job", number, path, decoders)`` per video and
``("free", slot)`` per chunk that was released. Up: ``("ready",)`` once the imports are done, then
per video ``("trying", number, index, why)``, ``("opened", number, info, stamp)``,
``("chunk", number, slot, shape, dtype, ticks, span_s, yuv)``, and ``("finished", number,
figures)`` or ``("failed", number, failures)``; in between ``("beat",)`` as a sign of life and
``("grown", slot_bytes)`` when the slots were made larger. They are plain tuples because one is sent
for every megabyte of frames. Pixels travel in :class:`SlotMemory`. A decode thread
(:mod:`tspcli.video.decode_thread`) speaks the same language.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.windows import Seconds
from tspcli.sampling.yuv import YuvFormat
from tspcli.video.decoders import DecoderEntry
from tspcli.video.inputs import VideoFile
from tspcli.video.source import VideoInfo


@dataclass(frozen=True)
class WorkerSetup:
    """The settings of a decode process, as given to :class:`~tspcli.video.decode_pool.DecodePool`.

    Only ``device`` differs between the processes of a pool.
    """

    sampling: Sampling
    spec: FrameSpec
    slots: int
    chunk_bytes: int
    timeout_s: float
    threads: int
    memory_limit_bytes: int
    first_decoder: DecoderEntry
    as_yuv: bool = False
    device: str | None = None


class SlotMemory:
    """Shared memory cut into slots of one size; pool and process map the same file.

    Args:
        file_descriptor: An anonymous file, owned by the caller.
        slots: Number of slots.
        slot_bytes: Size of a slot.
    """

    def __init__(self, file_descriptor: int, slots: int, slot_bytes: int) -> None:
        self._fd = file_descriptor
        self._slots = slots
        self.slot_bytes = slot_bytes
        self._map()

    def grow(self, slot_bytes: int) -> None:
        """Make the slots larger. Their contents are lost; views of the old slots stay valid."""
        self.slot_bytes = slot_bytes
        self._map()

    def slot(self, index: int) -> memoryview:
        """The bytes of a slot, writable."""
        start = index * self.slot_bytes
        return memoryview(self._mapped)[start : start + self.slot_bytes]

    def _map(self) -> None:
        size = self._slots * self.slot_bytes
        if os.fstat(self._fd).st_size < size:
            os.ftruncate(self._fd, size)
        self._mapped = mmap.mmap(self._fd, size)


@dataclass(frozen=True)
class Opened:
    """A video was opened; its frames follow.

    Attributes:
        job: The video.
        info: What its header says.
        stamp: Size in bytes and modification time (ns) of its file before it was opened.
    """

    job: VideoFile
    info: VideoInfo
    stamp: tuple[int, int] | None = None


class DecodeSpan(NamedTuple):
    """When a decode process worked on some frames.

    Attributes:
        process: Its process id.
        began_s, ended_s: Seconds on the clock of ``time.monotonic``.
    """

    process: int
    began_s: float
    ended_s: float


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a video, in time order.

    Attributes:
        job: The video.
        ticks: For each frame the needed ticks at which it is shown.
        pixels: Shape (n, h, w, 3), uint8 or float32 in 0..255; a view of shared memory, valid
            until :meth:`release` is called. Decoding continues only when frames are released.
        span: When they were decoded, if that is known.
        yuv: The format of coded pictures, if ``pixels`` are these: (n, bytes), uint8, each packed
            for the pool's spec as :class:`~tspcli.sampling.yuv.YuvReading` does it.
        on_device: Set where a thread of this process decodes on a GPU: ``pixels`` are a torch
            tensor there, the samples that a reading reads of each picture, complete once this
            event of torch has happened.
    """

    job: VideoFile
    ticks: list[tuple[int, ...]]
    pixels: Any
    _release: Callable[[Frames], None] = field(repr=False)
    span: DecodeSpan | None = None
    yuv: YuvFormat | None = None
    on_device: Any = None

    def release(self) -> None:
        """Give the memory back, from any thread. Calling it again does nothing."""
        self._release(self)


@dataclass(frozen=True)
class Finished:
    """All frames of a video were delivered.

    Attributes:
        job: The video.
        n_ticks: Number of ticks of the video, for ``Sampling.n_clips``.
        decoder: The name of the decoder that decoded it.
        warnings: What could not be decoded, and the like.
        start_s, end_s: When the first frame is shown and when the display of the last one ends,
            seconds on the file's clock.
        n_frames: Number of frames of the source.
        n_decoded: Number of frames decoded; fewer where unneeded ones could be left out.
        native_rate, frame_times_s: See :class:`~tspcli.video.sampled.SampledFrames`.
    """

    job: VideoFile
    n_ticks: int
    decoder: str
    warnings: tuple[str, ...]
    start_s: Fraction
    end_s: Fraction
    n_frames: int
    n_decoded: int
    native_rate: Fraction | None = None
    frame_times_s: Seconds | None = None


@dataclass(frozen=True)
class Failed:
    """No decoder could decode a video. Frames delivered before are void."""

    job: VideoFile
    error: VideoError


@dataclass(frozen=True)
class Restarted:
    """A decoder failed on a video: its frames are void, and the next decoder starts over.

    Attributes:
        job: The video.
        decoder: The name of the decoder that follows.
        why: What happened to the one before.
    """

    job: VideoFile
    decoder: str
    why: str


@dataclass(frozen=True)
class Idle:
    """Every video so far has ended; more may be added."""


@dataclass(frozen=True)
class Woken:
    """:meth:`tspcli.video.decode_pool.DecodePool.wake` was called."""


Event = Opened | Frames | Finished | Failed | Restarted
