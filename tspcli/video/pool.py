"""Many videos decoded at once, each in a process that may hang or crash without harm."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.config import FrameSpec
from tspcli.errors import DependencyError, UsageError, VideoError
from tspcli.timeline import Sampling
from tspcli.video.base import VideoInfo, absolute, path_text
from tspcli.video.probe import VideoFile
from tspcli.video.process import WorkerProcess, available_cores, default_memory_limit_bytes
from tspcli.video.registry import (
    combine_failures,
    load_extra_decoder,
    resolve_decoders,
)
from tspcli.video.worker import WorkerSetup

_GRACE_S = 5.0
_MAX_THREADS = 8
_MAX_FAILED_STARTS = 3


@dataclass(frozen=True)
class Opened:
    """A video was opened; its frames follow."""

    job: VideoFile
    info: VideoInfo


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a video, in time order.

    Attributes:
        job: The video.
        ticks: For each frame the needed ticks that show it.
        pixels: Shape (n, h, w, 3), uint8 or float32 in 0..255; a view of shared memory that is
            valid until :meth:`release` is called, which has to happen for the decoding to go on.
    """

    job: VideoFile
    ticks: list[tuple[int, ...]]
    pixels: npt.NDArray[Any]
    _worker: _Worker = field(repr=False)
    _slot: int = field(repr=False)

    def release(self) -> None:
        """Give the memory back. Callable from any thread; more than once is harmless."""
        self._worker.release(self._slot, self)


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


Event = Opened | Frames | Finished | Failed | Restarted


@dataclass
class _Job:
    """A video on its way through the decoders."""

    number: int
    file: VideoFile
    next_decoder: int = 0
    failed: list[tuple[str, VideoError]] = field(default_factory=list)


class DecodePool:
    """Decodes videos in worker processes; iterate over it for the events.

    Videos start in the given order. Every worker holds at most ``slots`` chunks of
    ``chunk_bytes``; then it waits until the consumer releases one, so memory is bounded however
    slow the consumer is. Frames of one video come in order, those of several interleaved. To be
    iterated once, in one thread; :meth:`close` may be called from any.

    Args:
        jobs: The videos.
        sampling: Which frames clips are made of.
        spec: Size, crop and dtype of the frames.
        workers: Number of processes; None means one for each core, never more than videos.
        decoder: ``auto``, a decoder's name, or several to try one after the other.
        timeout_s: Seconds without a frame after which a decoder counts as hung.
        slots: Chunks that a worker may hold.
        chunk_bytes: Size of a chunk; a frame that is larger gets a chunk of its own.
        threads: Threads of a decoder; None shares the cores among the workers.
        memory_limit_bytes: What one worker may allocate; None takes a share of the machine's
            memory, 0 sets no limit.
        extra_decoders: ``module:function`` hooks that register further decoders.

    Raises:
        UsageError, DependencyError: If the decoder is unknown or not installed.

    Example:
        >>> with DecodePool(list_videos("videos"), sampling=Sampling(),
        ...                 spec=FrameSpec(ResizeSpec(128, 171))) as pool:   # doctest: +SKIP
        ...     for event in pool:
        ...         if isinstance(event, Frames):
        ...             use(event.pixels.copy(), event.ticks)
        ...             event.release()
    """

    def __init__(
        self,
        jobs: Iterable[VideoFile],
        *,
        sampling: Sampling,
        spec: FrameSpec,
        workers: int | None = None,
        decoder: str | Sequence[str] = "auto",
        timeout_s: float = 60.0,
        slots: int = 3,
        chunk_bytes: int = 4 << 20,
        threads: int | None = None,
        memory_limit_bytes: int | None = None,
        extra_decoders: Sequence[str] = (),
    ) -> None:
        for hook in extra_decoders:
            load_extra_decoder(hook)
        self._decoders = resolve_decoders(decoder)
        self._pending = deque(_Job(number, file) for number, file in enumerate(jobs))
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers cannot decode.", remedy="Give 1 or more.")
        cores = available_cores()
        self.n_workers = max(1, min(workers or cores, len(self._pending)))
        if memory_limit_bytes is None:
            memory_limit_bytes = default_memory_limit_bytes(self.n_workers)
        self._setup = WorkerSetup(
            sampling=sampling,
            spec=spec,
            slots=slots,
            chunk_bytes=chunk_bytes,
            timeout_s=timeout_s,
            threads=threads or max(1, min(cores // self.n_workers, _MAX_THREADS)),
            memory_limit_bytes=memory_limit_bytes,
            extra_decoders=tuple(extra_decoders),
        )
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._running = False
        self._disposed = False

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        with self._lock:
            if self._running or self._disposed or self._closed.is_set():
                return
            self._running = True
        try:
            yield from self._events()
        finally:
            self._closed.set()
            with self._lock:
                self._running = False
            self._kill_all()
            self._dispose()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that are running."""
        return [worker.process.pid for worker in list(self._workers) if not worker.gone]

    def close(self) -> None:
        """Kill the workers and end the iteration; views that were handed out stay readable."""
        self._closed.set()
        with self._lock:
            if not self._disposed:
                os.write(self._wake_write, b"x")
            running = self._running
        self._kill_all()
        if not running:
            self._dispose()

    def _events(self) -> Iterator[Event]:
        while not self._closed.is_set():
            self._staff()
            busy = [worker for worker in self._workers if not worker.gone]
            if not busy:
                return
            waited = [worker.connection for worker in busy]
            ready = wait([*waited, self._wake_read], timeout=self._patience(busy))
            if self._closed.is_set():
                return
            for worker in busy:
                if worker.connection in ready:
                    yield from self._hear(worker)
                elif worker.is_overdue(self._setup.timeout_s + _GRACE_S):
                    worker.process.kill()
                    yield from self._bury(worker, timed_out=True)
                if self._closed.is_set():
                    return

    def _staff(self) -> None:
        """Give every idle worker a video, and start workers while there are videos for them."""
        for worker in self._workers:
            if worker.is_idle and self._pending:
                worker.assign(self._pending.popleft(), self._decoders)
            elif worker.job is None and not self._pending:
                worker.dismiss()
        self._workers = [worker for worker in self._workers if not worker.gone]
        n_starting = sum(not worker.ready for worker in self._workers)
        while n_starting < len(self._pending) and len(self._workers) < self.n_workers:
            with self._lock:
                if self._closed.is_set():
                    return
                self._workers.append(_Worker(self._setup))
            n_starting += 1

    def _patience(self, busy: Sequence[_Worker]) -> float:
        limit_s = self._setup.timeout_s + _GRACE_S
        now = time.monotonic()
        return max(0.0, min(worker.last_sign + limit_s - now for worker in busy)) + 0.05

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        worker.last_sign = time.monotonic()
        kind = message[0]
        if kind == "ready":
            worker.ready = True
            self._failed_starts = 0
            return
        if kind == "grown":
            worker.process.memory.grow(message[1])
            return
        job = worker.job
        if kind == "beat" or job is None:
            return
        assert message[1] == job.number
        if kind == "opened":
            yield Opened(job.file, message[2])
        elif kind == "chunk":
            yield worker.take_chunk(job.file, *message[2:])
        elif kind == "trying":
            index = job.next_decoder = worker.first_decoder + message[2]
            if message[2]:
                yield Restarted(job.file, self._decoders[index], message[3])
        elif kind == "finished":
            worker.job = None
            yield Finished(job.file, **message[2])
        else:
            worker.job = None
            failures = [
                (name, VideoError(reason, detail, path=path_text(job.file.path)))
                for name, reason, detail in message[2]
            ]
            yield Failed(job.file, combine_failures(job.failed + failures, job.file.path))

    def _bury(self, worker: _Worker, timed_out: bool = False) -> Iterator[Event]:
        """A worker died: try its video with the next decoder, in a new process."""
        reason, detail = worker.process.cause_of_death(timed_out, self._setup.timeout_s)
        job = worker.job
        worker.bury()
        if self._closed.is_set():
            return
        if job is None:
            if not worker.ready:
                self._failed_starts += 1
                if self._failed_starts >= _MAX_FAILED_STARTS:
                    raise DependencyError(
                        f"Decode processes do not start: {detail}",
                        remedy="Run tsp doctor to see what is missing.",
                    )
            return
        name = self._decoders[job.next_decoder]
        error = VideoError(reason, detail, path=path_text(job.file.path))
        job.failed.append((name, error))
        job.next_decoder += 1
        if job.next_decoder < len(self._decoders):
            self._pending.appendleft(job)
            why = f"{name}: {error.detail}"
            yield Restarted(job.file, self._decoders[job.next_decoder], why)
        else:
            yield Failed(job.file, combine_failures(job.failed, job.file.path))

    def _kill_all(self) -> None:
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.reap()

    def _dispose(self) -> None:
        with self._lock:
            if self._disposed:
                return
            self._disposed = True
        for worker in self._workers:
            worker.bury()
        self._workers = []
        os.close(self._wake_read)
        os.close(self._wake_write)


class _Worker:
    """A worker process as the pool sees it."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.process = WorkerProcess(setup)
        self.ready = False
        self.gone = False
        self.job: _Job | None = None
        self.first_decoder = 0
        self.last_sign = time.monotonic()
        self._slots = setup.slots
        self._held: dict[int, Frames] = {}
        self._lock = threading.Lock()

    @property
    def connection(self) -> Connection:
        return self.process.connection

    @property
    def is_idle(self) -> bool:
        return self.ready and not self.gone and self.job is None

    def is_overdue(self, limit_s: float) -> bool:
        """Whether it owes a sign of life; one that waits for a slot owes none."""
        with self._lock:
            waiting = len(self._held) >= self._slots
        return not waiting and time.monotonic() - self.last_sign > limit_s

    def assign(self, job: _Job, decoders: tuple[str, ...]) -> None:
        self.job = job
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
    ) -> Frames:
        count = int(np.prod(shape))
        flat = np.frombuffer(self.process.memory.slot(slot), np.dtype(dtype), count=count)
        frames = Frames(file, ticks, flat.reshape(shape), self, slot)
        with self._lock:
            self._held[slot] = frames
        return frames

    def release(self, slot: int, frames: Frames) -> None:
        with self._lock:
            if self._held.get(slot) is not frames:
                return
            del self._held[slot]
            # Until now it may have waited for this very slot.
            self.last_sign = time.monotonic()
            if self.gone:
                return
            self._send_locked(("free", slot))

    def dismiss(self) -> None:
        """No more videos: hang up, which ends it."""
        self.process.kill()
        self.bury()

    def bury(self) -> None:
        with self._lock:
            if self.gone:
                return
            self.gone = True
            self.process.dispose()

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._lock:
            self._send_locked(message)

    def _send_locked(self, message: tuple[Any, ...]) -> None:
        # A worker that died is noticed where its messages are read.
        with suppress(OSError):
            self.process.connection.send(message)
