"""Starting, sharing memory with, and ending one decode process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection

from tspcli.video.base import absolute
from tspcli.video.worker import SlotMemory, WorkerSetup

# Not multiprocessing's spawn: that imports the user's main script again, torch included, and
# demands a main guard in it. SIGINT is the parent's business alone, from the first moment on.
_START = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[4].split("\\n")
from tspcli.video.worker import main
main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""
_TAIL_BYTES = 8192
_GIB = 1 << 30


class WorkerProcess:
    """One decode process with its connection, its shared memory and what it wrote to stderr.

    Nothing of it has a name in the file system, so nothing is left over however it ends.

    Args:
        setup: What the worker is told.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.memory_fd = _anonymous_file("tspcli-frames")
        self._log_fd = _anonymous_file("tspcli-log", append=True)
        self.memory = SlotMemory(self.memory_fd, setup.slots, setup.chunk_bytes)
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline_fd = os.pipe()
        descriptors = (theirs.fileno(), self.memory_fd, lifeline)
        places = [absolute(place) for place in sys.path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *map(str, descriptors), "\n".join(places)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=self._log_fd,
                stderr=self._log_fd,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        finally:
            theirs.close()
            os.close(lifeline)
        self.connection = Connection(ours.detach())
        with suppress(OSError):
            self.connection.send(setup)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL; harmless if it is dead."""
        with suppress(OSError):
            self._process.kill()

    def reap(self) -> None:
        """Wait for a process that was killed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)

    def cause_of_death(self, timed_out: bool, timeout_s: float) -> tuple[str, str]:
        """Why the process died: a reason and the details.

        Args:
            timed_out: Whether the pool killed it.
            timeout_s: The time limit, for the message.
        """
        if not timed_out:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        status = self._process.poll()
        log = self._log_tail()
        if timed_out or "Timeout (" in log:
            return "timeout", f"no frame within {timeout_s:g} s"
        if "bad_alloc" in log or "MemoryError" in log:
            return "out-of-memory", "the decode process ran out of memory"
        if status is not None and status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
            detail = f"the decode process was ended by {name}"
            if name == "SIGKILL":
                detail += ", perhaps by the system for want of memory"
            return "crashed", detail
        words = _last_line(log)
        return "crashed", f"the decode process ended with status {status}" + (
            f": {words}" if words else ""
        )

    def dispose(self) -> None:
        """End it and close everything; views of its memory stay valid."""
        self.kill()
        self.reap()
        self.connection.close()
        for descriptor in (self._lifeline_fd, self.memory_fd, self._log_fd):
            os.close(descriptor)

    def _log_tail(self) -> str:
        size = os.fstat(self._log_fd).st_size
        data = os.pread(self._log_fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return data.decode("utf-8", "backslashreplace")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def default_memory_limit_bytes(workers: int) -> int:
    """What one of several workers may allocate: a share of the machine, between 1 and 4 GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 4 * _GIB
    return max(_GIB, min(4 * _GIB, total // (workers + 1)))


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
