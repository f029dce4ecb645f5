"""Many videos decoded at once, in processes that may hang or crash without harm."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from multiprocessing.connection import wait

from tspcli.core.child_process import available_cores, default_memory_limit_bytes
from tspcli.errors import DependencyError, UsageError, VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec
from tspcli.video.decoders import (
    FINAL_REASONS,
    DecoderEntry,
    combine_failures,
    resolve_decoders,
)
from tspcli.video.inputs import VideoFile
from tspcli.video.messages import (
    Event,
    Failed,
    Finished,
    Idle,
    Opened,
    Restarted,
    Woken,
    WorkerSetup,
)
from tspcli.video.worker_handle import Job, WorkerHandle, WorkerProcess

_START_LIMIT_S = 120.0
_LONGEST_WAIT_S = 3600.0  # the system takes no endless waits; after this one the next begins
_MAX_THREADS = 8
_MAX_FAILED_STARTS = 3
_CUDA_MAPPED_BYTES = 16 << 30
"""What CUDA may map for itself; it counts towards the limit although little of it is ever used."""


class DecodePool:
    """Decodes videos in worker processes; iterating over it gives the events.

    Videos start in the given order. A worker that has sent ``slots`` chunks of ``chunk_bytes``
    waits until the consumer releases one, so memory is bounded however slow the consumer is. The
    frames of a video come in order, those of several videos interleaved. Iterate once, in one
    thread; :meth:`close`, :meth:`add`, :meth:`drain`, :meth:`finish` and :meth:`wake` may be called
    from any thread.

    Args:
        jobs: The videos.
        sampling: Which frames the clips are made of.
        spec: Size, crop and dtype of the frames.
        as_yuv: Give coded pictures, packed for ``spec``, wherever the consumer can make the same
            frames of them (:attr:`~tspcli.video.messages.Frames.yuv`).
        workers: Number of processes; None takes one per core, but no more than videos.
        decoder: ``auto``, a decoder's name or entry, or several to try one after the other.
        timeout_s: Seconds without a frame after which a decoder counts as hung; infinite for no
            limit.
        slots: Number of chunks per worker.
        chunk_bytes: Size of a chunk; a larger frame gets a chunk of its own.
        threads: Threads per decoder; None shares the cores among the workers.
        memory_limit_bytes: What a worker may allocate; None takes a share of the machine's memory,
            0 sets no limit.
        devices: GPUs such as ``cuda:1`` among which the workers are distributed, for a decoder that
            uses one; without any it takes the first. With ``as_yuv`` a decoder that can decodes on
            the first of them in threads of this process (:mod:`tspcli.video.decode_thread`), and
            the worker processes do without it; each takes the next video.
        hold_open: Wait for further videos from :meth:`add` until :meth:`finish` is called.
        grace_s: Seconds beyond the time limit after which a worker that did not end itself is
            killed.

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
        as_yuv: bool = False,
        workers: int | None = None,
        decoder: str | DecoderEntry | Sequence[str | DecoderEntry] = "auto",
        timeout_s: float = 60.0,
        slots: int = 3,
        chunk_bytes: int = 4 << 20,
        threads: int | None = None,
        memory_limit_bytes: int | None = None,
        devices: Sequence[str] = (),
        hold_open: bool = False,
        grace_s: float = 5.0,
    ) -> None:
        self._grace_s = grace_s
        self._decoders = resolve_decoders(decoder)
        self._numbers = count()
        self._pending = deque(Job(next(self._numbers), file) for file in jobs)
        self._again: deque[Job] = deque()
        """Videos that a worker failed on, or died of."""
        self._held_open = hold_open
        self._draining = False
        if workers is not None and workers < 1:
            raise UsageError(
                f"The number of workers must be at least 1, not {workers}.", value=workers
            )
        self._devices = tuple(dict.fromkeys(devices))
        self._n_threads = self._decoders[0].threads if as_yuv and self._devices else 0
        self._first_of_processes = 1 if self._n_threads else 0
        cores = available_cores()
        self.n_workers = workers or cores
        if not hold_open:
            self.n_workers = max(1, min(self.n_workers, len(self._pending)))
        if memory_limit_bytes is None:
            memory_limit_bytes = default_memory_limit_bytes(self.n_workers)
            if any(entry.on_gpu for entry in self._decoders[self._first_of_processes :]):
                memory_limit_bytes += _CUDA_MAPPED_BYTES
        self._setup = WorkerSetup(
            sampling=sampling,
            spec=spec,
            slots=slots,
            chunk_bytes=chunk_bytes,
            timeout_s=timeout_s,
            threads=threads or max(1, min(cores // self.n_workers, _MAX_THREADS)),
            memory_limit_bytes=memory_limit_bytes,
            first_decoder=self._decoders[self._first_of_processes],
            as_yuv=as_yuv,
        )
        self._workers: list[WorkerHandle] = []
        self._failed_starts = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._running = False
        self._disposed = False

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        for event in self.live():
            if not isinstance(event, (Idle, Woken)):
                yield event

    def live(self) -> Iterator[Event | Idle | Woken]:
        """The events of the videos and, in between, those of the pool itself."""
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
        """The ids of the running processes."""
        workers = list(self._workers)
        return [w.process.pid for w in workers if not (w.gone or w.is_thread)]

    def add(self, file: VideoFile) -> None:
        """Add a video after those that wait."""
        self._pending.append(Job(next(self._numbers), file))
        self.wake()

    def finish(self) -> None:
        """End once all videos have ended: no more will be added."""
        self._held_open = False
        self.wake()

    def drain(self) -> None:
        """Start no further video, and end once those being decoded have ended."""
        # The iterating thread empties the queue: it may be about to take the last video.
        self._draining = True
        self.finish()

    def wake(self) -> None:
        """Make the iteration give a :class:`Woken` soon."""
        with self._lock:
            if not self._disposed:
                # A full pipe wakes it as well.
                with suppress(BlockingIOError):
                    os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Kill the workers and end the iteration. Frames that were given stay readable."""
        self._closed.set()
        self.wake()
        with self._lock:
            running = self._running
        self._kill_all()
        if not running:
            self._dispose()

    def _events(self) -> Iterator[Event | Idle | Woken]:
        idle = False
        while not self._closed.is_set():
            self._start_workers()
            busy = [worker for worker in self._workers if not worker.gone]
            if not busy and not self._held_open:
                return
            was_idle, idle = idle, not self._n_waiting and all(w.job is None for w in busy)
            if idle and not was_idle and self._held_open:
                yield Idle()
            waited = [worker.connection for worker in busy]
            ready = wait([*waited, self._wake_read], timeout=self._patience(busy))
            if self._closed.is_set():
                return
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                yield Woken()
            for worker in busy:
                if worker.connection in ready and not worker.gone:
                    yield from self._handle_message(worker)
                elif not worker.gone and worker.is_overdue(self._limit_s(worker)):
                    worker.process.kill()
                    yield from self._on_exit(worker, timed_out=True)
                if self._closed.is_set():
                    return

    def _start_workers(self) -> None:
        """Give each idle worker a video, and start workers while there are videos for them."""
        if self._draining:
            self._draining = False
            self._pending.clear()
            self._again.clear()
        for worker in self._workers:
            if worker.is_idle and (job := self._next_job(worker)) is not None:
                end = self._first_of_processes if worker.is_thread else None
                worker.assign(job, self._decoders[:end])
            elif worker.job is None and not self._n_waiting and not self._held_open:
                worker.stop()
        self._workers = [worker for worker in self._workers if not worker.gone]
        self._start(True, self._n_threads, len(self._pending))
        self._start(False, self.n_workers, self._n_waiting)

    @property
    def _n_waiting(self) -> int:
        return len(self._again) + len(self._pending)

    def _next_job(self, worker: WorkerHandle) -> Job | None:
        """The video for an idle worker; a thread takes none that was begun before."""
        waiting = self._again if self._again and not worker.is_thread else self._pending
        if not waiting:
            return None
        job = waiting.popleft()
        if not worker.is_thread:
            job.next_decoder = max(job.next_decoder, self._first_of_processes)
        return job

    def _start(self, as_threads: bool, limit: int, n_waiting: int) -> None:
        """Start workers of one kind while there are videos for them."""
        kind = [worker for worker in self._workers if worker.is_thread == as_threads]
        n_starting = sum(not worker.ready for worker in kind)
        n_workers = len(kind)
        while n_starting < n_waiting and n_workers < limit:
            with self._lock:
                if self._closed.is_set():
                    return
                self._workers.append(self._new_worker(as_threads))
            n_starting += 1
            n_workers += 1

    def _new_worker(self, as_thread: bool) -> WorkerHandle:
        if not as_thread:
            setup = replace(self._setup, device=self._next_device())
            return WorkerHandle(setup, WorkerProcess(setup))
        # It imports torch, which no decode process needs.
        from tspcli.video.decode_thread import WorkerThread

        first, device = self._decoders[0], self._devices[0]
        setup = replace(self._setup, device=device, first_decoder=first, threads=1)
        return WorkerHandle(setup, WorkerThread(setup))

    def _next_device(self) -> str | None:
        """The device with the fewest workers."""
        taken = [worker.device for worker in self._workers if not worker.gone]
        return min(self._devices, key=taken.count, default=None)

    def _patience(self, busy: Sequence[WorkerHandle]) -> float | None:
        ends = [w.last_sign + self._limit_s(w) for w in busy if not w.is_idle]
        if not ends:
            return None
        return min(max(0.0, min(ends) - time.monotonic()) + 0.05, _LONGEST_WAIT_S)

    def _limit_s(self, worker: WorkerHandle) -> float:
        """How long a worker may be silent; its imports alone take a while on a busy machine."""
        limit_s = self._setup.timeout_s
        return (limit_s if worker.ready else max(limit_s, _START_LIMIT_S)) + self._grace_s

    def _handle_message(self, worker: WorkerHandle) -> Iterator[Event]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._on_exit(worker)
            return
        worker.last_sign = time.monotonic()
        kind = message[0]
        if kind == "ready":
            worker.ready = True
            self._failed_starts = 0
            return
        if kind == "grown":
            assert isinstance(worker.process, WorkerProcess)
            worker.process.memory.grow(message[1])
            return
        job = worker.job
        if kind == "beat" or job is None:
            return
        assert message[1] == job.number
        worker.has_begun = True
        if kind == "opened":
            yield Opened(job.file, *message[2:])
        elif kind == "chunk":
            yield worker.take_chunk(job.file, *message[2:])
        elif kind == "trying":
            index = job.next_decoder = worker.first_decoder + message[2]
            if message[2]:
                yield Restarted(job.file, self._decoders[index].name, message[3])
        elif kind == "finished":
            worker.job = None
            yield Finished(job.file, **message[2])
        else:
            worker.job = None
            job.failed += [
                (name, VideoError(reason, detail, path=job.file.path))
                for name, reason, detail in message[2]
            ]
            if worker.is_thread and job.failed[-1][1].reason not in FINAL_REASONS:
                yield self._try_next(job)
            else:
                yield Failed(job.file, combine_failures(job.failed, job.file.path))

    def _on_exit(self, worker: WorkerHandle, timed_out: bool = False) -> Iterator[Event]:
        """A worker died: its video is tried with the next decoder, in a new process."""
        reason, detail = worker.process.cause_of_death(timed_out, self._setup.timeout_s)
        job = worker.job
        worker.on_exit()
        if self._closed.is_set():
            return
        if worker.is_thread:
            # What it held of the GPU is lost with it.
            self._n_threads -= 1
        if job is None:
            if not worker.ready and not worker.is_thread:
                self._failed_starts += 1
                if self._failed_starts >= _MAX_FAILED_STARTS:
                    raise DependencyError(
                        f"Decode processes do not start: {detail}",
                        remedy="Run `tsp doctor` to see what is missing.",
                    )
            return
        name = self._decoders[job.next_decoder].name
        from_outside = worker.process.was_killed_from_outside(timed_out)
        if from_outside and not worker.has_begun:
            # It died before it was given the video, which cannot be the cause.
            self._again.appendleft(job)
            return
        if from_outside and not job.was_killed:
            # The decoder may not be at fault, so it is tried again before the next one.
            job.was_killed = True
            self._again.appendleft(job)
            yield Restarted(job.file, name, f"{name}: {detail}")
            return
        job.failed.append((name, VideoError(reason, detail, path=job.file.path)))
        yield self._try_next(job)

    def _try_next(self, job: Job) -> Restarted | Failed:
        """Put a video back for the decoder after the one that failed, if there is one."""
        name, error = job.failed[-1]
        job.next_decoder += 1
        if job.next_decoder == len(self._decoders):
            return Failed(job.file, combine_failures(job.failed, job.file.path))
        self._again.appendleft(job)
        following = self._decoders[job.next_decoder].name
        return Restarted(job.file, following, f"{name}: {error.detail}")

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
            worker.on_exit()
        self._workers = []
        os.close(self._wake_read)
        os.close(self._wake_write)
