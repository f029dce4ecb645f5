"""A run over several devices of one machine: a process each, and one pool of decode workers.

The pool is this process's. A video belongs to the device that had least to do when its decoding
began; its frames stay in the shared memory that the decode worker wrote them to, which that
device's process maps too: only words travel. Rows are committed by the device's process. If it
dies or hangs (:mod:`tspcli.extraction.service`), its videos are decoded afresh for the
others. A run that is told to stop drains the pool, and the devices commit what they have been
given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from tspcli.core.child_process import ChildProcess, available_cores
from tspcli.core.progress import Reporter
from tspcli.core.stop import GentleStop
from tspcli.core.text import counted
from tspcli.errors import TspError
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.feeder import open_pool
from tspcli.extraction.run_report import RunFigures
from tspcli.extraction.shard_plan import file_size
from tspcli.extraction.task import Board, Task, require_alike
from tspcli.store.parts import PartsFolder
from tspcli.video import DecodePool, Event, Failed, Finished, Frames, Idle, VideoFile, Woken

_STOP_S = 5.0
"""What a device gets to commit what it has when the run is interrupted."""
_LOOK_EVERY_S = 0.25
"""How often at least the reporter is asked whether the run is to stop."""
_SILENT_S = 120.0
"""How long a device's process may say nothing; it beats once a second."""
_STARTING_S = 600.0
"""The same before its encoder is loaded: Python imports libraries without letting threads run."""


class Device:
    """The process of one device, as this one sees it.

    It is sent ``(config, device, threads)``, then the task, then ``frames``, ``memory`` (followed
    by a file descriptor), ``event``, and ``end`` or ``stop``. It tells ``ready``, ``release``,
    ``result``, ``progress``, ``message``, ``ended``, or ``error`` (the run's) and ``fault`` (its
    own), and ``beat`` once a second.
    """

    def __init__(self, name: str, config: ExtractConfig, n_threads: int | None) -> None:
        self.name = name
        self.videos: dict[str, VideoFile] = {}
        """Its videos that have not ended, by key."""
        self.decoding: set[str] = set()
        self.given_bytes = 0
        self.ended_s = 0.0
        self.progress = RunFigures()
        self.alive = True
        self.ended = False
        self.fault: str | None = None
        self._heard = False
        self._silent_s = 0.0
        self._held: dict[int, Frames] = {}
        self._tokens = count()
        self._memories: set[int] = set()
        self._listener: threading.Thread | None = None
        self.process = ChildProcess("tspcli.extraction.encode_worker")
        self.process.limit_sending(_SILENT_S)
        self.send((config, name, n_threads))

    def ready(self) -> EncoderFacts:
        """Wait until its encoder is loaded.

        Raises:
            TspError: If it cannot be loaded.
        """
        kind, value = self._first_words()
        if kind == "error":
            raise value
        if kind == "fault":
            raise TspError(
                f"The encoder could not be started on {self.name}: its process {value}.",
                remedy="Try that device alone, with --device; `tsp doctor` tells what there is.",
            )
        facts: EncoderFacts = value
        return facts

    def _first_words(self) -> tuple[str, Any]:
        try:
            while self.process.connection.poll(_STARTING_S):
                message = self.process.connection.recv()
                if message[0] != "beat":
                    return message[0], message[1]
        except (EOFError, OSError):
            return "fault", self.process.last_words()
        return "fault", f"gave no sign of life for {_STARTING_S:g} s"

    def listen(self, inbox: SimpleQueue[tuple[Device, Any]], pool: DecodePool) -> None:
        """Put what it tells into the inbox from now on, and wake the pool."""

        def work() -> None:
            try:
                while True:
                    message = self.process.connection.recv()
                    self._heard = True
                    if message[0] == "beat":
                        continue
                    if message[0] == "release":
                        if frames := self._held.pop(message[1], None):
                            frames.release()
                    else:
                        inbox.put((self, message))
                        pool.wake()
            except (EOFError, OSError):
                inbox.put((self, ("gone",)))
                pool.wake()

        self._listener = threading.Thread(target=work, name=f"tspcli-{self.name}", daemon=True)
        self._listener.start()

    def forward(self, event: Event, memories: frozenset[int]) -> None:
        """Pass on what the pool tells of one of its videos."""
        if not isinstance(event, Frames):
            self.send(("event", event))
            return
        if not self.alive:
            event.release()
            return
        place = event.place
        if place.memory not in self._memories:
            self._memories = {*(self._memories & memories), place.memory}
            self.send(("memory", place.memory, frozenset(self._memories)))
            self._try(partial(self.process.connection.send_descriptor, place.file_descriptor))
        token = next(self._tokens)
        self._held[token] = event
        pixels = event.pixels
        self.send(("frames", token, event.job, event.ticks, place, pixels.shape, pixels.dtype.name))

    def send(self, message: tuple[Any, ...]) -> None:
        """Send; that it has died is noticed where its messages are read."""
        self._try(partial(self.process.connection.send, message))

    def _try(self, send: Callable[[], None]) -> None:
        try:
            send()
        except BlockingIOError:
            self.give_up(f"took nothing for {_SILENT_S:g} s")
        except OSError:
            pass

    def watch(self, passed_s: float) -> None:
        """Give it up if it has been silent for too long.

        Args:
            passed_s: Seconds since the last call in which it could have been heard.
        """
        self._silent_s = 0.0 if self._heard else self._silent_s + passed_s
        self._heard = False
        if self._silent_s > _SILENT_S and self.alive and not self.ended:
            self.give_up(f"gave no sign of life for {_SILENT_S:g} s")

    def give_up(self, words: str) -> None:
        """End it; it is noticed to be gone where its messages are read."""
        if self.fault is None:
            self.fault = words
            self.process.kill()
            # A process that the system does not let go of does not end by that.
            self.process.hang_up()

    def let_go(self) -> None:
        """Give back all frames that it holds."""
        for frames in list(self._held.values()):
            frames.release()
        self._held.clear()

    def close(self, patience_s: float = 0.0) -> None:
        """End it."""
        if patience_s:
            self.process.reap(patience_s)
        self.process.kill()
        if self._listener is not None:
            self._listener.join(timeout=5)
        self.process.dispose()


class DevicesRunner:
    """Runs one engine a device.

    Args:
        config: The user's choices.
        devices: Names of torch devices; one may be named twice.
    """

    shares_out = True

    def __init__(self, config: ExtractConfig, devices: Sequence[str]) -> None:
        self._config = config
        self._names = list(devices)
        self._devices: list[Device] = []
        self._facts: EncoderFacts | None = None
        self._inbox: SimpleQueue[tuple[Device, Any]] = SimpleQueue()
        self._looked = 0.0

    def start(self, reporter: Reporter) -> EncoderFacts:
        """Start the processes; each loads the encoder."""
        n_cpu = sum(name.startswith("cpu") for name in self._names)
        for name in self._names:
            n_threads = max(1, available_cores() // n_cpu) if name.startswith("cpu") else None
            self._devices.append(Device(name, self._config, n_threads))
        facts = [device.ready() for device in self._devices]
        require_alike(dict(zip(self._unique_names(), facts, strict=True)))
        self._facts = facts[0]
        return self._facts

    def run(
        self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, board: Board
    ) -> None:
        """Do the videos.

        Raises:
            TspError: If no device is left.
        """
        assert self._facts is not None
        left = {video.key: video for video in videos}
        started = time.monotonic()
        pool = open_pool(
            videos,
            self._facts,
            task.sampling,
            task.config,
            devices=self._names,
            hold_open=True,
        )
        owners: dict[str, Device] = {}
        stop = GentleStop(board.reporter)
        self._looked = started
        try:
            with closing(pool):
                for device in self._devices:
                    device.send(("task", task))
                    device.listen(self._inbox, pool)
                for event in pool.live(wake_every_s=_LOOK_EVERY_S):
                    if stop.begins():
                        pool.drain()
                    board.progress.elapsed_s = time.monotonic() - started
                    if isinstance(event, Idle):
                        for device in self._devices:
                            device.send(("event", event))
                    elif not isinstance(event, Woken):
                        self._route(event, owners, pool)
                    self._watch()
                    for device in self._read_inbox(left, parts, board):
                        self._replace(device, owners, pool, board, stop)
                    if not left:
                        break
            self._end(left, parts, board, stop)
            stop.conclude()
        finally:
            self._interrupt(stop.patience_s(_STOP_S))
            board.progress.elapsed_s = time.monotonic() - started
            board.progress.copy_to(board.report)

    def close(self) -> None:
        """End the processes."""
        while self._devices:
            self._devices.pop().close()

    def _route(self, event: Event, owners: dict[str, Device], pool: DecodePool) -> None:
        file = event.job
        device = owners.get(file.key)
        if device is None:
            device = min(
                (device for device in self._devices if device.alive),
                key=lambda device: (len(device.decoding), device.given_bytes),
            )
            owners[file.key] = device
            device.videos[file.key] = file
            device.decoding.add(file.key)
            device.given_bytes += file_size(file.path)
        if isinstance(event, (Finished, Failed)):
            device.decoding.discard(file.key)
        device.forward(event, pool.memories)

    def _watch(self) -> None:
        """Look for devices that hang."""
        now = time.monotonic()
        # This process may have been stopped itself, together with them.
        passed_s = min(now - self._looked, 4 * _LOOK_EVERY_S)
        self._looked = now
        for device in self._devices:
            device.watch(passed_s)

    def _read_inbox(
        self, left: dict[str, VideoFile], parts: PartsFolder, board: Board, wait_s: float = 0.0
    ) -> Iterator[Device]:
        """Take what the devices told, and give those that are gone without having ended."""
        with suppress(Empty):
            while True:
                device, (kind, *values) = self._inbox.get(block=wait_s > 0, timeout=wait_s or None)
                wait_s = 0.0
                if kind == "result":
                    file = left.pop(values[0].key)
                    del device.videos[file.key]
                    if values[0].status == "done":
                        parts.take(file.key)
                        device.ended_s += values[0].duration_s or 0.0
                    board.end(values[0], file_size(file.path))
                elif kind == "progress":
                    device.progress = values[0]
                    self._sum_up(board)
                    board.show()
                elif kind == "message":
                    board.reporter.message(values[0])
                elif kind == "error":
                    raise values[0]
                elif kind == "fault":
                    device.fault = f"failed: {values[0]}"
                elif kind == "ended":
                    device.ended = True
                    board.report.notes += values[0]
                else:
                    device.alive = False
                    if not device.ended:
                        device.progress = device.progress.of_the_lost(device.ended_s)
                        yield device

    def _replace(
        self,
        device: Device,
        owners: dict[str, Device],
        pool: DecodePool,
        board: Board,
        stop: GentleStop,
    ) -> None:
        """A device is gone: let the others do its videos."""
        device.let_go()
        words = device.fault or device.process.last_words()
        lost = list(device.videos.values())
        if not any(other.alive for other in self._devices):
            raise TspError(
                f"The process of {device.name} {words}; no device is left.",
                remedy="Finished videos are kept; the same command goes on from there.",
            )
        board.note(
            f"The process of {device.name} {words}. Under way there: "
            f"{counted(len(lost), 'video')}, "
            + ("left." if stop.wanted else "done by the other devices.")
        )
        device.videos.clear()
        if stop.wanted:
            return
        for file in reversed(lost):
            del owners[file.key]
            pool.requeue(file)

    def _end(
        self, left: dict[str, VideoFile], parts: PartsFolder, board: Board, stop: GentleStop
    ) -> None:
        """Wait for the devices to say their last, also of videos if the run was told to stop."""
        for device in self._devices:
            device.send(("end",))
        deadline = time.monotonic() + _STOP_S
        while any(device.alive for device in self._devices):
            if not left and time.monotonic() > deadline:
                break
            stop.begins()
            for device in self._read_inbox(left, parts, board, wait_s=_LOOK_EVERY_S):
                words = device.fault or device.process.last_words()
                board.note(f"The process of {device.name} {words}.")
        self._sum_up(board)

    def _interrupt(self, patience_s: float) -> None:
        """Nobody writes any more when this returns.

        Args:
            patience_s: What the devices get for what they are writing.
        """
        for device in self._devices:
            device.send(("stop",))
        deadline = time.monotonic() + patience_s
        while self._devices:
            self._devices.pop().close(max(0.0, deadline - time.monotonic()))

    def _sum_up(self, board: Board) -> None:
        """The devices' figures together; waiting and encoding as the mean over the devices."""
        each = [device.progress for device in self._devices]
        if each:
            board.progress.n_clips = sum(progress.n_clips for progress in each)
            board.progress.video_s = sum(progress.video_s for progress in each)
            board.progress.begun_bytes = sum(progress.begun_bytes for progress in each)
            board.progress.encode_s = sum(p.encode_s for p in each) / len(each)
            board.progress.decode_wait_s = sum(p.decode_wait_s for p in each) / len(each)

    def _unique_names(self) -> list[str]:
        return [f"{name} (process {i})" for i, name in enumerate(self._names, start=1)]
