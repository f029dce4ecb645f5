"""Child processes that may hang, crash or outgrow their memory without harm to this one.

:class:`ChildProcess` lives as long as its parent wants and is talked to over a socket;
:func:`run_isolated` runs some code once and returns its answer. :func:`die_with_parent` and
:func:`limit_memory` are called by the child. What a process may use of the machine stands at the
end.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tspcli.core.files import absolute

# Not multiprocessing's spawn: that imports the user's main script again, torch included, and
# demands a main guard in it. SIGINT and SIGTERM, which terminals and schedulers send to all
# processes of a run at once, are for the parent alone to handle, from the first moment on.
# -c puts the current folder first on the path, where a stray signal.py would be run.
_START = """\
import sys
sys.path[:] = sys.argv[2].split("\\n")
import importlib, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
importlib.import_module(sys.argv[1]).main(*map(int, sys.argv[3:]))
"""
_ISOLATED = """\
import sys
sys.path[:] = sys.argv[1].split("\\n")
from tspcli.core.child_process import limit_memory
limit_memory(int(sys.argv[2]))
del sys.argv[1:3]
"""
_TAIL_BYTES = 1 << 18
"""Of a log; the words by which a hang is known stand before the tracebacks of all threads."""
_GIB = 1 << 30
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class SocketConnection(Connection):
    """A connection to a process whose death does no harm to this one.

    Programs used in pipes often let SIGPIPE end them, and writing to a dead process raises it;
    on Linux it is suppressed here.

    Args:
        end: One of a pair of stream sockets; the connection owns it from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        super().__init__(end.fileno())

    # Connection writes and closes through these two.

    def _send(self, data: Any, write: Any = None) -> None:
        left = memoryview(data)
        while left:
            left = left[self.end.send(left, _NO_SIGNAL) :]

    def _close(self, close: Any = None) -> None:
        self.end.close()


class ChildProcess:
    """A process that runs a module of ours, with a connection to it and a log of its stderr.

    Neither has a name in the file system, so nothing is left behind however the process ends.

    Args:
        module: Its function ``main`` is called with the file descriptors of the connection's
            socket, of a pipe that closes when the parent dies, and of ``descriptors``.
        descriptors: Files that it inherits.
        environment: Variables added to the parent's.
    """

    def __init__(
        self,
        module: str,
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log_fd = anonymous_file("tspcli-log", append=True)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            # Programs may have set a default time limit for all their sockets.
            end.setblocking(True)
        lifeline, self._lifeline_fd = os.pipe()
        inherited = (theirs.fileno(), lifeline, *descriptors)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, module, _import_path(), *map(str, inherited)],
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

    @property
    def exit_status(self) -> int | None:
        """Its exit status, or minus the signal that killed it; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL; harmless if it is dead."""
        with suppress(OSError):
            self._process.kill()

    def reap(self, timeout_s: float = 5.0) -> None:
        """Wait for a process that was killed or is about to end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=timeout_s)

    def last_words(self) -> str:
        """How a dead process ended: its signal, or its status and the last line it wrote."""
        self.reap()
        return how_it_ended(self.exit_status, self.log_tail())

    def log_tail(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        size = os.fstat(self._log_fd).st_size
        data = os.pread(self._log_fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return data.decode("utf-8", "backslashreplace")

    def limit_waiting(self, seconds: float) -> None:
        """Let the connection raise BlockingIOError after a wait of so long.

        That is a process that takes nothing of what is sent, or leaves a message half sent.
        """
        whole_s, rest_s = divmod(seconds, 1)
        timeval = struct.pack("ll", int(whole_s), int(rest_s * 1e6))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self.connection.end.setsockopt(socket.SOL_SOCKET, option, timeval)

    def hang_up(self) -> None:
        """Receive nothing more than what it has sent so far."""
        with suppress(OSError):
            self.connection.end.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        """Kill it and close everything."""
        self.kill()
        self.reap()
        self.connection.close()
        for descriptor in (self._lifeline_fd, self._log_fd):
            os.close(descriptor)


@dataclass(frozen=True)
class IsolatedResult:
    """What came of :func:`run_isolated`.

    Attributes:
        answer: The JSON value that the code printed; None if there is none.
        problem: Why there is no answer.
        timed_out: Whether the time limit was reached.
    """

    answer: Any = None
    problem: str | None = None
    timed_out: bool = False


def run_isolated(
    code: str, *arguments: str, timeout_s: float, memory_limit_bytes: int = 0
) -> IsolatedResult:
    """Run some Python in a process of its own, whose death is only a finding.

    Args:
        code: Prints one JSON value as its last line. It imports from where this process does.
        arguments: Its ``sys.argv[1:]``.
        timeout_s: When it is killed.
        memory_limit_bytes: See :func:`limit_memory`.
    """
    head = [sys.executable, "-c", _ISOLATED + code, _import_path(), str(memory_limit_bytes)]
    try:
        done = subprocess.run(
            [*head, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return IsolatedResult(problem=f"no answer within {timeout_s:g} s", timed_out=True)
    except OSError as error:
        return IsolatedResult(problem=f"no process could be started: {error}")
    if done.returncode:
        # A Python process that fails says why in its last line.
        last = _last_line(done.stderr) if done.returncode > 0 else ""
        return IsolatedResult(problem=last or f"the process {how_it_ended(done.returncode, '')}")
    try:
        return IsolatedResult(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return IsolatedResult(problem="the process printed no answer")


def how_it_ended(status: int | None, log: str) -> str:
    r"""How a process ended, to follow "the process": its signal, or its status and last line.

    >>> how_it_ended(-11, ""), how_it_ended(1, "Traceback\\nKeyError: 'a'\\n")
    ('was killed by SIGSEGV', "ended with status 1: KeyError: 'a'")
    """
    if status is not None and status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"was killed by {name}" + (
            ", perhaps by the system for lack of memory" if name == "SIGKILL" else ""
        )
    last = _last_line(log)
    return f"ended with status {status}" + (f": {last}" if last else "")


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def anonymous_file(name: str, append: bool = False) -> int:
    """The descriptor of a file without a place, in memory where the system supports that."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    if append:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
    return descriptor


def _import_path() -> str:
    return "\n".join(absolute(place) for place in sys.path)


# --- in the child ---------------------------------------------------------------------------------


def die_with_parent(lifeline_fd: int) -> None:
    """Let the kernel end this process when the other end of the pipe closes.

    The signal's default action is to terminate, and a signal needs no interpreter lock.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    # Nothing is ever written, so an empty read means that the parent died before.
    with suppress(BlockingIOError):
        if not os.read(lifeline_fd, 1):
            os._exit(0)


def limit_memory(limit_bytes: int) -> None:
    """Bound what this process may allocate, so that one file cannot take the machine down.

    Args:
        limit_bytes: 0 for no limit.
    """
    if not limit_bytes:
        return
    import resource

    # Private memory alone: the address space would also count files and libraries.
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- the machine ----------------------------------------------------------------------------------


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that a container may use; None if it may use all."""
    with_period = [
        (root / "cpu.max", None),
        (root / "cpu" / "cpu.cfs_quota_us", root / "cpu" / "cpu.cfs_period_us"),
    ]
    for quota_file, period_file in with_period:
        try:
            words = quota_file.read_text().split()
            if period_file is not None:
                words.append(period_file.read_text().strip())
            quota, period = words[0], words[1]
            return None if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError, IndexError):
            continue
    return None


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


def default_memory_limit_bytes(workers: int) -> int:
    """What one of several workers may allocate: a share of the memory, between 1 and 4 GiB."""
    total = memory_bytes()
    return 4 * _GIB if total is None else max(_GIB, min(4 * _GIB, total // (workers + 1)))
