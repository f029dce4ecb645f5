"""How long videos last by their headers, read in child processes that a bad file may end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tspcli.core.child_process import ChildProcess, available_cores, die_with_parent, limit_memory
from tspcli.core.files import absolute
from tspcli.core.text import storable
from tspcli.errors import VideoError
from tspcli.video.source import check_file, file_stamp

_FILES_PER_CHILD = 64
"""Starting a process takes as long as reading this many headers."""
_MAX_CHILDREN = 16
_START_LIMIT_S = 120.0
_FILE_LIMIT_S = 20.0
_MEMORY_LIMIT_BYTES = 1 << 30
LEAST_BYTES_PER_S = 100
"""No video is smaller: a header with a duration that implies it is damaged."""


def read_durations(
    paths: Sequence[Path],
    *,
    children: int | None = None,
    file_limit_s: float = _FILE_LIMIT_S,
    module: str = "tspcli.video.durations",
) -> list[int | None]:
    """The durations of videos by their headers, in milliseconds.

    None stands for a file that cannot be read, announces no credible duration, or crashes or
    stalls the process that reads it.

    Args:
        paths: The files.
        children: Number of processes; None chooses by the number of files and cores.
        file_limit_s: How many seconds one file may take.
        module: The module whose ``main`` a process runs.
    """
    if children is None:
        children = min(available_cores(), _MAX_CHILDREN, 1 + len(paths) // _FILES_PER_CHILD)
    reading = _Reading(paths, file_limit_s, module)
    threads = [
        threading.Thread(target=reading.work, name="tspcli-durations", daemon=True)
        for _ in range(min(children, len(paths)))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        reading.end()
    return reading.answers


class _Reading:
    """Files on their way through the child processes."""

    def __init__(self, paths: Sequence[Path], file_limit_s: float, module: str) -> None:
        self._paths = paths
        self._module = module
        self._limit_s = file_limit_s
        self._lock = threading.Lock()
        self._left: Iterator[int] = iter(range(len(paths)))
        self._over = False
        self._children: set[ChildProcess] = set()
        self.answers: list[int | None] = [None] * len(paths)

    def work(self) -> None:
        """Use one process after another until no file is left."""
        while not self._over:
            with self._lock:
                index = next(self._left, None)
                if index is None or self._over:
                    return
                child = ChildProcess(self._module)
                self._children.add(child)
            ready = False
            try:
                if not child.connection.poll(_START_LIMIT_S):
                    return
                child.connection.recv_bytes()
                ready = True
                self._ask(child, index)
            except (EOFError, OSError):
                # It died on a file, which gets no answer. A process that does not even start is
                # not replaced.
                if not ready:
                    return
            finally:
                with self._lock:
                    self._children.discard(child)
                child.dispose()

    def end(self) -> None:
        """Stop: no more answers are needed."""
        with self._lock:
            self._over = True
            for child in self._children:
                child.kill()

    def _ask(self, child: ChildProcess, index: int | None) -> None:
        while index is not None:
            child.connection.send_bytes(os.fsencode(absolute(self._paths[index])))
            if not child.connection.poll(self._limit_s):
                return
            answer = child.connection.recv_bytes()
            self.answers[index] = int(answer) if answer else None
            with self._lock:
                index = next(self._left, None)


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Answer with the duration of one file after another until the parent closes the connection."""
    die_with_parent(lifeline_fd)
    limit_memory(_MEMORY_LIMIT_BYTES)
    line = Connection(socket_fd)
    with suppress(EOFError, OSError):
        line.send_bytes(b"")
        while True:
            duration_ms = header_duration_ms(os.fsdecode(line.recv_bytes()))
            line.send_bytes(b"" if duration_ms is None else str(duration_ms).encode())
    os._exit(0)


def header_duration_ms(path: str) -> int | None:
    """The duration of one file or None. A damaged file may crash or stall this process.

    A file whose clock seems to step is read as a whole.
    """
    from tspcli.video.decoders.clock_steps import may_step, read_clock, seems_stepped
    from tspcli.video.decoders.containers import describe, open_container, pick_stream

    text = storable(path)
    try:
        name = check_file(path)
        size = os.stat(path).st_size
        with open_container(name, text) as container:
            stream = pick_stream(container, text)
            duration_s = describe(container, stream, text).duration_s
            if may_step(container) and seems_stepped(container, stream, size):
                duration_s = read_clock(name, stream.index, file_stamp(path)).duration_s
    except (VideoError, OSError, ValueError, ArithmeticError, MemoryError):
        return None
    if duration_s is None or not 0 < duration_s * LEAST_BYTES_PER_S <= size:
        return None
    return max(1, round(duration_s * 1000))
