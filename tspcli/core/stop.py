"""Ending a run early, in good order.

The first SIGTERM or Ctrl-C asks the run to finish what is under way; the second ends it. A run that
takes longer than the hard limit is ended anyway, which loses no more than a SIGKILL would.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tspcli.core.progress import Reporter

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HARD_LIMIT_S = 9.0
"""How long after the first signal the process may take to end."""
_SAYING_S = 1.0
"""How long the last words may take, in case nobody reads stderr."""
_SHOW_CURSOR = b"\x1b[?25h"


class Stopper:
    """Takes the signals of a run.

    Args:
        say: Shows a line of text; may be called on any thread.
        stopping: What to say when a run is asked to stop.
        farewell: What to say when the run has ended early.
        asked_by: Another reason to stop, such as a launcher that is gone.
        is_launched: Whether a launcher passes signals on: whoever signals all processes then does
            so twice, and only the second Ctrl-C ends the run.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        stopping: str = "",
        farewell: str = "Interrupted.",
        asked_by: Callable[[], bool] = lambda: False,
        is_launched: bool = False,
    ) -> None:
        self._say = say
        self._stopping = stopping
        self._farewell = farewell
        self._asked_by = asked_by
        self._is_launched = is_launched
        self._asked = False
        self._attended = False
        self._number = int(signal.SIGINT)
        self._count = 0
        self._ended = False
        self._timer: threading.Timer | None = None

    def requested(self) -> bool:
        """Whether the run is to stop. Until the run first asks, a signal interrupts it at once."""
        self._attended = True
        return self._asked or self._asked_by()

    @property
    def exit_code(self) -> int:
        """Of a run that was stopped: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self._number

    def farewell(self) -> int:
        """Say what is kept; return the exit code."""
        self._say(self._farewell)
        return self.exit_code

    def heard(self, number: int) -> None:
        """Take note of a signal and start the hard limit.

        Called on a thread of its own, also while the main thread is in C code.
        """
        self._note(number)
        if self._timer is None and not self._ended:
            self._timer = threading.Timer(HARD_LIMIT_S, self._leave)
            self._timer.daemon = True
            self._timer.start()
            if self._attended and self._stopping:
                self._say(self._stopping)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal on the main thread, as soon as that is back in Python."""
        self._note(number)
        if self._count and self._is_launched and number == signal.SIGTERM:
            return
        self._count += 1
        if not self._attended or self._count > 1:
            raise KeyboardInterrupt

    def rest(self) -> None:
        """Let signals and the hard limit have no effect: the run has ended."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, number: int) -> None:
        self._number = number
        self._asked = True

    def _leave(self) -> None:
        if self._ended:
            return
        words = threading.Thread(target=self._last_words, daemon=True)
        words.start()
        words.join(_SAYING_S)
        os._exit(self.exit_code)

    def _last_words(self) -> None:
        if os.isatty(2):
            with suppress(OSError):
                os.write(2, _SHOW_CURSOR)
        self._say(self._farewell)


@contextmanager
def stoppable(
    say: Callable[[str], None],
    *,
    stopping: str = "",
    farewell: str = "Interrupted.",
    asked_by: Callable[[], bool] = lambda: False,
    hard_limit: bool = True,
    is_launched: bool = False,
) -> Iterator[Stopper]:
    """Let SIGTERM and Ctrl-C stop what runs inside in good order. For the main thread alone.

    Args:
        say: Shows a line of text; may be called on any thread.
        stopping: What to say when the run is asked to stop.
        farewell: What :meth:`Stopper.farewell` says.
        asked_by: Another reason to stop.
        hard_limit: Whether the process ends after :data:`HARD_LIMIT_S`, even inside C code.
        is_launched: See :class:`Stopper`.
    """
    stopper = Stopper(
        say, stopping=stopping, farewell=farewell, asked_by=asked_by, is_launched=is_launched
    )
    previous = {number: signal.signal(number, stopper.interrupt) for number in _SIGNALS}
    try:
        if hard_limit:
            with _listening(stopper.heard):
                yield stopper
        else:
            yield stopper
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        stopper.rest()


@contextmanager
def _listening(heard: Callable[[int], None]) -> Iterator[None]:
    """Report signals on a thread: Python's handlers wait for the main one, which may be in C."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        while data := ours.recv(16):
            for number in data:
                if number in _SIGNALS:
                    heard(number)

    listener = threading.Thread(target=listen, name="tspcli-signals", daemon=True)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        theirs.close()
        listener.join(timeout=1)
        ours.close()


STOP_GRACE_S = 5.0
"""How long videos under way may take to end once a run is asked to stop."""
_CLOSING_S = 2.5


class GentleStop:
    """Ends a run early: no further video is begun, those under way are finished.

    Args:
        reporter: Is asked whether to stop.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._by: float | None = None
        self._over = False

    @property
    def wanted(self) -> bool:
        """Whether the run is to end, as of the last :meth:`begins`."""
        return self._by is not None

    def begins(self) -> bool:
        """Ask the reporter; return whether this is the first time that it wants to stop.

        Raises:
            KeyboardInterrupt: If the videos under way take too long.
        """
        if self._by is None:
            if self._reporter.stop_requested():
                self._by = time.monotonic() + STOP_GRACE_S
                return True
        elif time.monotonic() > self._by:
            self.conclude()
        return False

    def conclude(self) -> None:
        """Note that all that could be finished is finished.

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
        # A second signal interrupts the run itself, which then waits for nobody.
        return min(otherwise_s, _CLOSING_S) if self._over else 0.0
