"""Decoding on a GPU in threads of the process that encodes there, beside the decode processes.

A process of its own would have a CUDA context of its own, share the GPU in time slices, and copy
every frame to the host and back. A thread leaves the pictures where they were decoded: of each it
gathers the samples that the scaling reads. To its pool it is a worker like a process
(:mod:`tspcli.video.messages`), except that it cannot be killed. A thread that hangs is left alone
and its video goes to the processes; a crash in the driver ends the run, which can be resumed.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from tspcli.core.child_process import SocketConnection
from tspcli.errors import VideoError
from tspcli.sampling.yuv import YuvReading
from tspcli.video.decode_worker import Collector, Worker
from tspcli.video.decoders import preload
from tspcli.video.messages import WorkerSetup
from tspcli.video.source import Frame, VideoSource

Gathered = tuple[torch.Tensor, torch.Event]
"""Samples of some pictures, and what has to happen on the device before they are there."""


class WorkerThread:
    """A decode thread as its pool holds it: what a decode process is to a pool.

    Args:
        setup: Its settings; ``device`` is the GPU.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(True)
        self.connection = SocketConnection(ours)
        self._gathered: dict[int, Gathered] = {}
        self._thread = threading.Thread(
            target=_run,
            args=(SocketConnection(theirs), setup, self._gathered),
            name="tspcli-decode",
            daemon=True,
        )
        self._thread.start()

    @property
    def pid(self) -> int:
        """The thread's number in the system."""
        return self._thread.native_id or 0

    def contents(self, slot: int, shape: tuple[int, ...], dtype: str) -> Gathered:
        """What the thread has put into a slot."""
        return self._gathered.pop(slot)

    def cause_of_death(self, timed_out: bool, timeout_s: float) -> tuple[str, str]:
        """Why it is given up: a reason and the details."""
        if timed_out:
            return "timeout", f"no frame within {timeout_s:g} s"
        return "crashed", "the decode thread ended"

    def was_killed_from_outside(self, timed_out: bool) -> bool:
        """Never: nobody can kill a thread."""
        return False

    def kill(self) -> None:
        """Hang up, so that it ends with its next message."""
        with suppress(OSError):
            self.connection.end.shutdown(socket.SHUT_RDWR)

    def reap(self, timeout_s: float = 1.0) -> None:
        """Wait for its end, unless it hangs."""
        self._thread.join(timeout_s)

    def dispose(self) -> None:
        """Hang up and forget it."""
        self.kill()
        self.connection.close()
        self._gathered.clear()


def _run(connection: Connection, setup: WorkerSetup, gathered: dict[int, Gathered]) -> None:
    with connection, suppress(EOFError, OSError), torch.inference_mode():
        preload(setup.first_decoder)
        # Decoders use the thread's current stream, and so do the kernels that gather.
        assert setup.device is not None
        with torch.Stream(torch.device(setup.device)) as stream:
            ThreadWorker(connection, setup, stream, gathered).run()


class ThreadWorker(Worker):
    """The worker in a decode thread."""

    def __init__(
        self,
        connection: Connection,
        setup: WorkerSetup,
        stream: torch.Stream,
        gathered: dict[int, Gathered],
    ) -> None:
        super().__init__(connection, setup)
        self.stream = stream
        self.gathered = gathered

    def collector(self, number: int, source: VideoSource) -> Collector:
        """A video's samples are gathered on the device."""
        if source.surface is None:
            raise VideoError("unsupported", f"{source.decoder} leaves no frames on the GPU")
        return _Samples(self, number, YuvReading(source.surface, self.setup.spec))


class _Samples:
    """Gathers what the scaling reads of some pictures."""

    def __init__(self, worker: ThreadWorker, number: int, reading: YuvReading) -> None:
        self._worker = worker
        self._number = number
        self._reading = reading
        height, width = reading.shape
        self._capacity = max(1, worker.setup.chunk_bytes // (3 * 4 * height * width))
        self._rows: list[Any] = []
        self._ticks: list[tuple[int, ...]] = []
        self._slot = -1
        self._began_s = time.monotonic()

    def add(self, frame: Frame, ticks: tuple[int, ...]) -> None:
        if self._slot < 0:
            waiting_s = time.monotonic()
            self._slot = self._worker.take_slot()
            self._began_s += time.monotonic() - waiting_s
        self._rows.append(frame.samples(self._reading))
        self._ticks.append(ticks)
        if len(self._rows) == self._capacity:
            self.flush()

    def flush(self) -> None:
        if self._slot < 0:
            return
        samples = torch.stack(self._rows)
        self._worker.gathered[self._slot] = samples, self._worker.stream.record_event()
        now_s = time.monotonic()
        span_s, self._began_s = (self._began_s, now_s), now_s
        slot, ticks, self._slot, self._rows, self._ticks = self._slot, self._ticks, -1, [], []
        self._worker.send_chunk(
            self._number, slot, tuple(samples.shape), "uint8", ticks, span_s, self._reading.format
        )

    def close(self) -> None:
        """Discard what was not flushed: a decoder failed half-way."""
        self._rows = []
        if self._slot >= 0:
            self._worker.return_slot(self._slot)
            self._slot = -1
