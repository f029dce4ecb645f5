"""SIGTERM and Ctrl-C: finish what is in flight, commit, say so, and be gone within ten seconds.

Ending a run early, but in good order.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from tspcli.cli.console import printable
from tspcli.extraction.run_report import Observer

if TYPE_CHECKING:
    from rich.console import Console


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HARD_LIMIT_S = 9.0
"""After so long the process ends at once, which loses no more than a SIGKILL does."""


class Stopper:
    """Takes the signals of a run.

    Attributes:
        requested: Whether one came.
        attended: Whether the run looks at ``requested``; until it does, a signal interrupts it.
    """

    def __init__(self, console: Console, out: object) -> None:
        self.requested = False
        self.attended = False
        self._console = console
        self._out = out
        self._number = int(signal.SIGINT)
        self._count = 0
        self._ended = False
        self._timer: threading.Timer | None = None

    def farewell(self) -> int:
        """Say what is kept; the exit code."""
        self._say(
            f"Interrupted. Finished videos are kept beside {printable(str(self._out))}; "
            "the same command goes on from here."
        )
        return 128 + self._number

    def heard(self, number: int) -> None:
        """A signal came; called on a thread of its own, also while the main one is in C code."""
        self._number = number
        self.requested = True
        if self._timer is None and not self._ended:
            self._timer = threading.Timer(HARD_LIMIT_S, self._leave)
            self._timer.daemon = True
            self._timer.start()
            if self.attended:
                self._say("Stopping: videos under way are finished first. Once more stops at once.")

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler, on the main thread as soon as that comes back to Python."""
        self._count += 1
        if not self.attended or self._count > 1:
            raise KeyboardInterrupt

    def rest(self) -> None:
        """The run has ended: nothing is left to be stopped, whatever is still heard."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _leave(self) -> None:
        if self._ended:
            return
        with suppress(OSError):
            self._console.show_cursor(True)
        os._exit(self.farewell())

    def _say(self, text: str) -> None:
        with suppress(OSError):
            self._console.print(text, markup=False, soft_wrap=True)


@contextmanager
def stoppable(console: Console, out: object) -> Iterator[Stopper]:
    """Let SIGTERM and Ctrl-C stop what runs inside in good order. For the main thread alone.

    Args:
        console: Where to say so.
        out: The store that the run writes.
    """
    stopper = Stopper(console, out)
    ours, theirs = socket.socketpair()
    ours.setblocking(True)
    theirs.setblocking(False)

    def listen() -> None:
        while data := ours.recv(16):
            for number in data:
                if number in _SIGNALS:
                    stopper.heard(number)

    listener = threading.Thread(target=listen, name="tspcli-signals", daemon=True)
    previous = {number: signal.signal(number, stopper.interrupt) for number in _SIGNALS}
    # Python's own handlers wait for the main thread, which may be in the encoder for long.
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener.start()
    try:
        yield stopper
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
        stopper.rest()
        theirs.close()
        listener.join(timeout=1)
        ours.close()


STOP_GRACE_S = 5.0
"""How long videos under way may take to end once a run is asked to stop."""
_CLOSING_S = 2.5


class GentleStop:
    """What a run knows of its observer's wish to end: begin no video, finish those under way.

    Args:
        observer: Who may wish it.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._by: float | None = None
        self._over = False

    @property
    def wanted(self) -> bool:
        """Whether the run is to end; as of the last :meth:`begins`."""
        return self._by is not None

    def begins(self) -> bool:
        """Ask the observer; whether it wishes the end for the first time.

        Raises:
            KeyboardInterrupt: If the videos under way take too long.
        """
        if self._by is None:
            if self._observer.wants_stop():
                self._by = time.monotonic() + STOP_GRACE_S
                return True
        elif time.monotonic() > self._by:
            self.conclude()
        return False

    def conclude(self) -> None:
        """What could be finished is.

        Raises:
            KeyboardInterrupt: If the run was to end.
        """
        if self._by is not None:
            self._over = True
            raise KeyboardInterrupt

    def patience_s(self, otherwise_s: float) -> float:
        """How long other processes may take to close.

        Args:
            otherwise_s: The answer for a run that was not asked to stop.
        """
        if self._by is None:
            return otherwise_s
        # Whoever asks a second time interrupts the run itself, and waits for nobody.
        return min(otherwise_s, _CLOSING_S) if self._over else 0.0
