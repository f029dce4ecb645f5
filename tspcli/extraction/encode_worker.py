"""The process of one device: frames that others decode come in, rows are committed as parts.

What comes over its connection is told in :class:`tspcli.extraction.supervisor.Device`.
"""

from __future__ import annotations

import mmap
import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from tspcli.core.child_process import die_with_parent
from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder
from tspcli.errors import TspError
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import EncoderFacts, load_configured_encoder
from tspcli.extraction.row_writer import WriterThread
from tspcli.extraction.run_report import ExtractReport, VideoResult
from tspcli.extraction.service import Pulse, stuck_after_s
from tspcli.extraction.task import Task
from tspcli.video import Event, Frames, Idle, SharedPlace, VideoFile, Woken

_TELL_EVERY_S = 0.5


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Run the process of a device until its run ends or its parent does."""
    # Both are the parent's business, which then tells us to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(lifeline_fd)
    line = _Line(Connection(socket_fd))
    try:
        config, device, n_threads = line.connection.recv()
        if n_threads:
            torch.set_num_threads(n_threads)
        pulse = Pulse(stuck_after_s(config), line.beat, line.give_up)
        pulse.start()
        encoder = load_configured_encoder(config, device)
        line.tell("ready", EncoderFacts.of(encoder))
        _, task = line.connection.recv()
        _run(line, task, encoder, pulse)
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        pass
    except TspError as error:
        line.tell("error", error)
    except BaseException as error:  # the parent tells what this process died of
        traceback.print_exc()
        line.tell("fault", f"{type(error).__name__}: {error}")
    # Libraries' threads may hang in their destructors.
    os._exit(0)


def _run(line: _Line, task: Task, encoder: Encoder, pulse: Pulse) -> None:
    report = ExtractReport(str(task.out), task.metadata.settings)
    source = _Forwarded(line)
    with WriterThread(task.parts()) as writer:
        engine = Engine(
            encoder=encoder,
            sampling=task.sampling,
            config=task.config,
            open_sink=lambda file: task.open_sink(writer, file),
            report=report,
            reporter=_Teller(line, pulse),
        )
        pulse.watch(True)
        engine.consume(pulse.watched(source))
    pulse.watch(False)
    engine.flush_results()
    line.tell("progress", engine.progress)
    line.tell("ended", report.notes)


class _Line:
    """The connection to the parent; any thread may tell."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def tell(self, *message: Any) -> None:
        with self._lock:
            self.connection.send(message)

    def take_descriptor(self) -> int:
        """The open file that comes next; for the one thread that reads."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
            _, [descriptor], *_ = socket.recv_fds(ours, 1, 1)
        return descriptor

    def beat(self) -> None:
        """Show that this process lives."""
        self.tell("beat")

    def give_up(self, why: str) -> None:
        """End this process, whatever its other threads are in."""
        self.tell("fault", why)
        os._exit(1)


class _Teller(Reporter):
    """Passes on what the engine tells."""

    def __init__(self, line: _Line, pulse: Pulse) -> None:
        self._line = line
        self._pulse = pulse
        self._next = 0.0

    def stop_requested(self) -> bool:
        self._pulse.turned()
        return False

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self._pulse.advanced()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL_EVERY_S
            self._line.tell("progress", figures)

    def result(self, result: VideoResult) -> None:
        self._line.tell("result", result)

    def message(self, text: str) -> None:
        self._line.tell("message", text)


class _Forwarded:
    """The parent's decode pool, as far as it concerns this device."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._events: queue.SimpleQueue[Event | Idle | Woken | BaseException | None] = (
            queue.SimpleQueue()
        )
        self._memories: dict[int, _Memory] = {}
        threading.Thread(target=self._listen, name="tspcli-listener", daemon=True).start()

    def live(self) -> Iterator[Event | Idle | Woken]:
        """What becomes of this device's videos."""
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def drain(self) -> None:
        """Begin no further video: that is for the pool's own process to say."""

    def wake(self) -> None:
        """Give a :class:`Woken`."""
        self._events.put(Woken())

    def close(self) -> None:
        """End the events."""
        self._events.put(None)

    def _listen(self) -> None:
        try:
            while True:
                kind, *values = self._line.connection.recv()
                if kind == "frames":
                    self._events.put(self._frames(*values))
                elif kind == "memory":
                    number, in_use = values
                    # Frames that are still looked at keep their memory by themselves.
                    for gone in self._memories.keys() - in_use:
                        self._memories.pop(gone).close()
                    self._memories[number] = _Memory(self._line.take_descriptor())
                elif kind == "event":
                    self._events.put(values[0])
                elif kind == "stop":
                    self._events.put(KeyboardInterrupt())
                else:
                    self._events.put(None)
        except BaseException:  # the parent is gone, and whoever comes next must find nobody at work
            os._exit(1)

    def _frames(
        self,
        token: int,
        job: VideoFile,
        ticks: list[tuple[int, ...]],
        place: SharedPlace,
        shape: tuple[int, ...],
        dtype: str,
    ) -> Frames:
        pixels = self._memories[place.memory].pixels(place.offset_bytes, shape, dtype)
        give_back = partial(self._line.tell, "release", token)
        return Frames(job, ticks, pixels, place, lambda _: give_back())


class _Memory:
    """A decode process's memory, mapped here too."""

    def __init__(self, file_descriptor: int) -> None:
        self._fd = file_descriptor
        self._mapped: mmap.mmap | None = None

    def pixels(self, offset_bytes: int, shape: tuple[int, ...], dtype: str) -> Any:
        count = int(np.prod(shape))
        end = offset_bytes + count * np.dtype(dtype).itemsize
        if self._mapped is None or len(self._mapped) < end:
            self._mapped = mmap.mmap(self._fd, os.fstat(self._fd).st_size)
        flat = np.frombuffer(self._mapped, np.dtype(dtype), count=count, offset=offset_bytes)
        return flat.reshape(shape)

    def close(self) -> None:
        os.close(self._fd)
