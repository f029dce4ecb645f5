"""The decode process: takes videos, writes scaled frames into shared memory, and may be killed.

It imports neither torch nor anything of the parent's program. It owes the parent a sign of life: a
message per second while frames arrive. faulthandler's timer, a C thread of its own, ends it when a
decoder hangs, even one that holds the interpreter lock. The kernel ends it when the parent dies
(SIGIO on a pipe of which the parent holds the other end), whoever holds the lock.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import sys
import time
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from tspcli.core.child_process import die_with_parent, limit_memory
from tspcli.errors import DependencyError, VideoError
from tspcli.sampling.yuv import YuvFormat, YuvReading
from tspcli.video.decoders import FINAL_REASONS, DecoderEntry, open_with, preload
from tspcli.video.messages import SlotMemory, WorkerSetup
from tspcli.video.sampled import SampledFrames
from tspcli.video.source import Frame, VideoSource, file_stamp

_BEAT_S = 1.0
_LONGEST_LIMIT_S = 1e9  # 30 years; faulthandler's timer takes no infinite time
_LOG_BYTES = 1 << 18
"""What a decoder may write to stderr before the log is cleared."""


def main(socket_fd: int, lifeline_fd: int, memory_fd: int) -> None:
    """Run a worker until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(lifeline_fd)
    faulthandler.enable()
    connection = Connection(socket_fd)
    try:
        setup: WorkerSetup = connection.recv()
        limit_memory(setup.memory_limit_bytes)
        _quieten()
        # Before it reports ready, so that no video's time limit runs during the import.
        preload(setup.first_decoder)
        memory = SlotMemory(memory_fd, setup.slots, setup.chunk_bytes)
        ProcessWorker(connection, setup, memory).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    # Decoders' own threads may hang in their destructors.
    os._exit(0)


class Collector(Protocol):
    """Gathers the frames of one video in slots, and sends these."""

    def add(self, frame: Frame, ticks: tuple[int, ...]) -> None:
        """Take a frame, whose picture is valid only now."""

    def flush(self) -> None:
        """Send what was gathered."""

    def close(self) -> None:
        """Discard what was not flushed: a decoder failed half-way."""


class Worker:
    """Decodes one video after another.

    Args:
        connection: To the pool.
        setup: What is decoded, and how.
    """

    def __init__(self, connection: Connection, setup: WorkerSetup) -> None:
        self.setup = setup
        self._connection = connection
        self._jobs: list[tuple[int, str, tuple[DecoderEntry, ...]]] = []
        self._free = set(range(setup.slots))
        self._next_beat = 0.0

    def run(self) -> None:
        """Decode until the connection ends, which raises EOFError."""
        self._connection.send(("ready",))
        while True:
            while not self._jobs:
                self._take_message()
            number, path, decoders = self._jobs.pop(0)
            self._beat(force=True)
            self._serve(number, path, decoders)
            self.suspend_limit()

    def collector(self, number: int, source: VideoSource) -> Collector:
        """What gathers the frames of a video."""
        raise NotImplementedError

    def restart_limit(self) -> None:
        """Note progress: a decoder that hangs has its time limit from now on."""

    def suspend_limit(self) -> None:
        """Set no time limit until the next progress."""

    def _serve(self, number: int, path: str, decoders: tuple[DecoderEntry, ...]) -> None:
        failed: list[tuple[str, str, str]] = []
        for index, entry in enumerate(decoders):
            why = f"{failed[-1][0]}: {failed[-1][2]}" if failed else ""
            self._connection.send(("trying", number, index, why))
            try:
                self._connection.send(("finished", number, self._decode(number, path, entry)))
                return
            except VideoError as error:
                reason, detail = error.reason, error.detail
            except DependencyError as error:
                reason, detail = "unsupported", str(error)
            except MemoryError as error:
                reason, detail = "out-of-memory", str(error) or "there was not enough memory"
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:  # a fault of a decoder must cost no more than its video
                reason, detail = "crashed", f"{type(error).__name__}: {error}"
            failed.append((entry.name, reason, _one_line(detail)))
            if reason in FINAL_REASONS:
                break
        self._connection.send(("failed", number, failed))

    def _decode(self, number: int, path: str, entry: DecoderEntry) -> dict[str, Any]:
        setup = self.setup
        # Taken before opening: the file may be replaced while it is open.
        stamp = file_stamp(path)
        with open_with(path, entry, setup.threads, setup.device) as source:
            self._connection.send(("opened", number, source.info, stamp))
            frames = SampledFrames(source, setup.sampling, on_frame=self._beat)
            with closing(self.collector(number, source)) as chunk:
                for sampled in frames:
                    chunk.add(sampled.frame, sampled.ticks)
                chunk.flush()
            return {
                "n_ticks": frames.n_ticks,
                "decoder": entry.name,
                "warnings": tuple(source.warnings),
                "start_s": frames.start_s,
                "end_s": frames.end_s,
                "n_frames": frames.n_frames,
                "n_decoded": source.n_decoded,
                "native_rate": frames.native_rate,
                "frame_times_s": frames.frame_times_s,
            }

    def take_slot(self) -> int:
        """A free slot; blocks until the parent releases one."""
        while self._connection.poll():
            self._take_message()
        while not self._free:
            self._wait_for_message()
        return self._free.pop()

    def return_slot(self, index: int) -> None:
        """Return a slot that was taken but not sent."""
        self._free.add(index)

    def send_chunk(
        self,
        number: int,
        slot: int,
        shape: tuple[int, ...],
        dtype: str,
        ticks: list[Any],
        span_s: tuple[float, float],
        yuv: YuvFormat | None,
    ) -> None:
        """Send a filled slot to the parent."""
        self._connection.send(("chunk", number, slot, shape, dtype, ticks, span_s, yuv))
        self._beat(force=True)

    def _wait_for_message(self) -> None:
        # Waiting for a slow consumer does not count as hanging.
        self.suspend_limit()
        self._take_message()
        self._beat(force=True)

    def _take_message(self) -> None:
        message = self._connection.recv()
        if message[0] == "free":
            self._free.add(message[1])
        else:
            self._jobs.append(message[1:])

    def _beat(self, force: bool = False) -> None:
        """Note progress: restart the time limit, and send a sign of life now and then."""
        now = time.monotonic()
        if not force and now < self._next_beat:
            return
        self._next_beat = now + _BEAT_S
        self.restart_limit()
        if not force:
            self._connection.send(("beat",))


class ProcessWorker(Worker):
    """The worker of a process of its own, with memory that it shares with the pool."""

    def __init__(self, connection: Connection, setup: WorkerSetup, memory: SlotMemory) -> None:
        super().__init__(connection, setup)
        self._memory = memory

    def collector(self, number: int, source: VideoSource) -> Collector:
        """A video's frames are scaled, or packed, into shared memory."""
        return _Chunk(self, number, source)

    def restart_limit(self) -> None:
        """Let faulthandler's timer end the process after the limit."""
        faulthandler.dump_traceback_later(min(self.setup.timeout_s, _LONGEST_LIMIT_S), exit=True)
        with suppress(OSError):
            if os.fstat(2).st_size > _LOG_BYTES:
                os.ftruncate(2, 0)

    def suspend_limit(self) -> None:
        """Stop the timer."""
        faulthandler.cancel_dump_traceback_later()

    def take_slot_of(self, frame_bytes: int) -> tuple[int, memoryview]:
        """A free slot that holds at least one frame, and its bytes."""
        if frame_bytes > self._memory.slot_bytes:
            # The layout changes under all slots, so none may be in use.
            while len(self._free) < self.setup.slots:
                self._wait_for_message()
            self._memory.grow(frame_bytes)
            self._connection.send(("grown", frame_bytes))
        slot = self.take_slot()
        return slot, self._memory.slot(slot)


class _Chunk:
    """Collects frames in one slot: scaled ones, or packed pictures of one format."""

    def __init__(self, worker: ProcessWorker, number: int, source: VideoSource) -> None:
        self._worker = worker
        self._number = number
        spec = worker.setup.spec
        self._spec = spec
        self._as_yuv = worker.setup.as_yuv
        self._size = source.info.height, source.info.width
        self._scaled_shape = (*spec.output_shape(*self._size), 3)
        self._yuv: YuvFormat | None = None
        self._reading: YuvReading | None = None
        self._ticks: list[tuple[int, ...]] = []
        self._slot = -1
        self._began_s = time.monotonic()
        self._pixels: Any = None

    def add(self, frame: Frame, ticks: tuple[int, ...]) -> None:
        picture = frame.yuv() if self._as_yuv else None
        # Frames of another size than the first ones are scaled to their size, which is done here.
        if picture is not None and picture.format.upright_size != self._size:
            picture = None
        yuv = None if picture is None else picture.format
        if yuv != self._yuv:
            self.flush()
            self._yuv = yuv
            self._reading = None if yuv is None else YuvReading(yuv, self._spec)
        if self._slot < 0:
            self._begin()
        out = self._pixels[len(self._ticks)]
        if picture is None or self._reading is None:
            frame.scaled(self._spec, out=out)
        else:
            self._reading.pack(picture.planes, out)
        self._ticks.append(ticks)
        if len(self._ticks) == len(self._pixels):
            self.flush()

    def _begin(self) -> None:
        """Take a slot."""
        shape: tuple[int, ...] = self._scaled_shape
        dtype = np.dtype(self._spec.dtype)
        if self._reading is not None:
            shape, dtype = (self._reading.n_bytes,), np.dtype(np.uint8)
        frame_bytes = math.prod(shape) * dtype.itemsize
        waiting_s = time.monotonic()
        self._slot, memory = self._worker.take_slot_of(frame_bytes)
        # The first frame is decoded by now; the time waited for a slot is not decoding.
        self._began_s += time.monotonic() - waiting_s
        capacity = max(1, self._worker.setup.chunk_bytes // frame_bytes)
        flat = np.frombuffer(memory, dtype, count=capacity * math.prod(shape))
        self._pixels = flat.reshape(capacity, *shape)

    def flush(self) -> None:
        if self._slot < 0:
            return
        pixels, self._pixels = self._pixels, None
        now_s = time.monotonic()
        self._worker.send_chunk(
            self._number,
            self._slot,
            (len(self._ticks), *pixels.shape[1:]),
            pixels.dtype.name,
            self._ticks,
            (self._began_s, now_s),
            self._yuv,
        )
        self._began_s = now_s
        self._slot, self._ticks = -1, []

    def close(self) -> None:
        """Discard what was not flushed: a decoder failed half-way."""
        self._pixels = None
        if self._slot >= 0:
            self._worker.return_slot(self._slot)
            self._slot = -1


def _quieten() -> None:
    """Use one thread in OpenCV, since there are as many workers as cores."""
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
    sys.stdout.flush()


def _one_line(text: str, limit: int = 400) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
