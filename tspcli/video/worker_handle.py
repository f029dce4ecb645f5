"""A decode process, or thread, as its pool sees it: its video, the chunks in use, its beats."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tspcli.core.child_process import ChildProcess, anonymous_file
from tspcli.core.files import absolute
from tspcli.errors import VideoError
from tspcli.sampling.yuv import YuvFormat
from tspcli.video.decoders import DecoderEntry
from tspcli.video.inputs import VideoFile
from tspcli.video.messages import DecodeSpan, Frames, SlotMemory, WorkerSetup

if TYPE_CHECKING:
    from tspcli.video.decode_thread import WorkerThread


@dataclass
class Job:
    """A video on its way through the decoders."""

    number: int
    file: VideoFile
    next_decoder: int = 0
    was_killed: bool = False
    failed: list[tuple[str, VideoError]] = field(default_factory=list)


class WorkerProcess(ChildProcess):
    """One decode process with the memory that it shares with its pool.

    Args:
        setup: Sent to the process.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.memory_fd = anonymous_file("tspcli-frames")
        self.memory = SlotMemory(self.memory_fd, setup.slots, setup.chunk_bytes)
        super().__init__(
            "tspcli.video.decode_worker",
            (self.memory_fd,),
            {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        with suppress(OSError):
            self.connection.send(setup)

    def contents(
        self, slot: int, shape: tuple[int, ...], dtype: str
    ) -> tuple[npt.NDArray[Any], None]:
        """What the process has put into a slot, as a view of it; it is there."""
        flat = np.frombuffer(self.memory.slot(slot), np.dtype(dtype), count=math.prod(shape))
        return flat.reshape(shape), None

    def cause_of_death(self, timed_out: bool, timeout_s: float) -> tuple[str, str]:
        """Why the process died: a reason and the details.

        Args:
            timed_out: Whether the pool killed it.
            timeout_s: The time limit, for the message.
        """
        words = "" if timed_out else self.last_words()
        log = self.log_tail()
        if timed_out or "Timeout (" in log:
            return "timeout", f"no frame within {timeout_s:g} s"
        if "bad_alloc" in log or "MemoryError" in log:
            return "out-of-memory", "the decode process ran out of memory"
        return "crashed", f"the decode process {words}"

    def was_killed_from_outside(self, timed_out: bool) -> bool:
        """Whether it died of a SIGKILL that was not the pool's."""
        return not timed_out and self.exit_status == -signal.SIGKILL

    def dispose(self) -> None:
        """End it and close everything; views of its memory stay valid."""
        super().dispose()
        os.close(self.memory_fd)


class WorkerHandle:
    """One worker of a pool, from its start to its end.

    Args:
        setup: Its settings.
        process: The process, or the thread, that decodes.
    """

    def __init__(self, setup: WorkerSetup, process: WorkerProcess | WorkerThread) -> None:
        self.process = process
        self.is_thread = not isinstance(process, WorkerProcess)
        self.device = setup.device
        self.ready = False
        self.gone = False
        self.job: Job | None = None
        self.has_begun = False
        """Whether it has sent anything about its video."""
        self.first_decoder = 0
        self.last_sign = time.monotonic()
        self._slots = setup.slots
        self._held: dict[int, Frames] = {}
        self._lock = threading.Lock()

    @property
    def connection(self) -> Connection:
        """The connection on which its messages arrive."""
        return self.process.connection

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a video."""
        return self.ready and not self.gone and self.job is None

    def is_overdue(self, limit_s: float) -> bool:
        """Whether a sign of life is overdue; none is due while it waits for a slot or a video."""
        if self.is_idle:
            return False
        with self._lock:
            waiting = len(self._held) >= self._slots
        return not waiting and time.monotonic() - self.last_sign > limit_s

    def assign(self, job: Job, decoders: tuple[DecoderEntry, ...]) -> None:
        """Give it a video and the decoders to try, in order."""
        self.job = job
        self.has_begun = False
        self.first_decoder = job.next_decoder
        self.last_sign = time.monotonic()
        path = absolute(job.file.path)
        self._send(("job", job.number, path, decoders[job.next_decoder :]))

    def take_chunk(
        self,
        file: VideoFile,
        slot: int,
        shape: tuple[int, ...],
        dtype: str,
        ticks: list[tuple[int, ...]],
        span_s: tuple[float, float],
        yuv: YuvFormat | None,
    ) -> Frames:
        """The frames that it has put into a slot."""
        pixels, on_device = self.process.contents(slot, shape, dtype)
        span = DecodeSpan(self.process.pid, *span_s)
        release = partial(self.release, slot)
        frames = Frames(file, ticks, pixels, release, span, yuv, on_device)
        with self._lock:
            self._held[slot] = frames
        return frames

    def release(self, slot: int, frames: Frames) -> None:
        """Let it fill a slot again. May be called from any thread."""
        with self._lock:
            if self._held.get(slot) is not frames:
                return
            del self._held[slot]
            # It may have waited for this slot until now.
            self.last_sign = time.monotonic()
            if self.gone:
                return
            self._send_locked(("free", slot))

    def stop(self) -> None:
        """End it: there are no more videos for it."""
        self.process.kill()
        self.on_exit()

    def on_exit(self) -> None:
        """Release everything of a process that has ended, or end it first."""
        with self._lock:
            if self.gone:
                return
            self.gone = True
            self.process.dispose()

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._lock:
            self._send_locked(message)

    def _send_locked(self, message: tuple[Any, ...]) -> None:
        # A dead worker is noticed where its messages are read.
        with suppress(OSError):
            self.process.connection.send(message)
