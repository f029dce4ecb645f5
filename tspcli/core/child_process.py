"""Starting processes of ours, sharing memory with those that decode, and ending them.

What the machine has.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tspcli.video.decode_worker import SlotMemory, WorkerSetup
from tspcli.video.source import absolute

# Not multiprocessing's spawn: that imports the user's main script again, torch included, and
# demands a main guard in it. SIGINT and SIGTERM, which terminals and schedulers send to all
# processes of a run at once, are the parent's business alone, from the first moment on.
# -c puts the current folder first on the path, where a stray signal.py would be run.
_START = """\
import sys
sys.path[:] = sys.argv[2].split("\\n")
import importlib, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
importlib.import_module(sys.argv[1]).main(*map(int, sys.argv[3:]))
"""
_TAIL_BYTES = 1 << 18
"""Of a log; the words by which a hang is known stand before the tracebacks of all threads."""
_GIB = 1 << 30
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class SocketConnection(Connection):
    """A connection that a process can be at the other end of which dies without harm to this one.

    Programs that are used in pipes often let SIGPIPE end them, which writing to the dead brings;
    on Linux it does not here.

    Args:
        end: Of a pair of stream sockets; the connection owns it from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        super().__init__(end.fileno())

    def send_descriptor(self, descriptor: int) -> None:
        """Send an open file, for ``socket.recv_fds`` to take out."""
        told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
        self.end.sendmsg([b"\0"], told, _NO_SIGNAL)

    # What Connection writes and closes with.

    def _send(self, data: Any, write: Any = None) -> None:
        left = memoryview(data)
        while left:
            left = left[self.end.send(left, _NO_SIGNAL) :]

    def _close(self, close: Any = None) -> None:
        self.end.close()


class ChildProcess:
    """A process that runs a module of ours, with a connection to it and what it wrote to stderr.

    Nothing of it has a name in the file system, so nothing is left over however it ends.

    Args:
        module: Whose function ``main`` is run, with the numbers of the connection's socket, of a
            pipe that ends when the parent does, and of ``descriptors``.
        descriptors: Files that it inherits.
        environment: Variables that it gets beside the parent's.
    """

    def __init__(
        self,
        module: str,
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log_fd = _anonymous_file("tspcli-log", append=True)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            # Programs may have set a time limit for all of their sockets.
            end.setblocking(True)
        lifeline, self._lifeline_fd = os.pipe()
        inherited = (theirs.fileno(), lifeline, *descriptors)
        places = "\n".join(absolute(place) for place in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, module, places, *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=self._log_fd,
                stderr=self._log_fd,
                env=os.environ | (environment or {}),
            )
        finally:
            theirs.close()
            os.close(lifeline)
        self.connection = SocketConnection(ours)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL; harmless if it is dead."""
        with suppress(OSError):
            self._process.kill()

    def reap(self, timeout_s: float = 5.0) -> None:
        """Wait for a process that was killed or is about to end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=timeout_s)

    def last_words(self) -> str:
        """How a process that died ended: its signal, or its status and the last line it wrote."""
        self.reap()
        status = self._process.poll()
        if status is not None and status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
            return f"was ended by {name}" + (
                ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
            )
        words = _last_line(self.log_tail())
        return f"ended with status {status}" + (f": {words}" if words else "")

    def log_tail(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        size = os.fstat(self._log_fd).st_size
        data = os.pread(self._log_fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return data.decode("utf-8", "backslashreplace")

    def limit_sending(self, seconds: float) -> None:
        """Let what is sent raise BlockingIOError if the process takes nothing for so long."""
        whole_s, rest_s = divmod(seconds, 1)
        timeval = struct.pack("ll", int(whole_s), int(rest_s * 1e6))
        self.connection.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def hang_up(self) -> None:
        """Hear no more of it than it has said."""
        with suppress(OSError):
            self.connection.end.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        """End it and close everything."""
        self.kill()
        self.reap()
        self.connection.close()
        for descriptor in (self._lifeline_fd, self._log_fd):
            os.close(descriptor)


class WorkerProcess(ChildProcess):
    """One decode process with its shared memory.

    Args:
        setup: What the worker is told.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.memory_fd = _anonymous_file("tspcli-frames")
        self.memory = SlotMemory(self.memory_fd, setup.slots, setup.chunk_bytes)
        super().__init__(
            "tspcli.video.decode_worker",
            (self.memory_fd,),
            {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        with suppress(OSError):
            self.connection.send(setup)

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
        return not timed_out and self._process.poll() == -signal.SIGKILL

    def dispose(self) -> None:
        """End it and close everything; views of its memory stay valid."""
        super().dispose()
        os.close(self.memory_fd)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def default_memory_limit_bytes(workers: int) -> int:
    """What one of several workers may allocate: a share of the memory, between 1 and 4 GiB."""
    total = memory_bytes()
    return 4 * _GIB if total is None else max(_GIB, min(4 * _GIB, total // (workers + 1)))


def _anonymous_file(name: str, append: bool = False) -> int:
    """A file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    if append:
        import fcntl

        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
    return descriptor


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may use: installed, or the cgroup's limit; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for file in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            memory = min(memory, int(file.read_text()))
        except (OSError, ValueError):
            continue
    return memory
