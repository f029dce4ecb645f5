"""Ending a run early, but in good order."""

from __future__ import annotations

import time

from tspcli.extraction.progress import Observer

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
