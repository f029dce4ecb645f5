"""What a long run reports while it is under way."""

from __future__ import annotations

from typing import Any, Protocol


class Reportable(Protocol):
    """Typed figures or a result that can also be shown as text."""

    def line(self) -> str:
        """One line for people; empty if there is nothing worth showing."""


class Reporter:
    """Receives what a run reports. This one stays silent; override what is of interest.

    Every method is called on the run's main thread, unless the run's documentation says otherwise;
    it also names the tasks, such as filling a cache and training, and the types of what is
    :class:`Any` here: text, or something :class:`Reportable`.
    """

    def start(self, task: str, total: int, done: int = 0, about: Any = "") -> None:
        """A task begins.

        Args:
            task: Its name.
            total: How many steps it has.
            done: How many of these are complete already.
            about: What is known before the first step.
        """

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        """A task made progress.

        Args:
            task: Its name.
            done: How many of its steps are complete.
            figures: How it is going.
        """

    def result(self, result: Any) -> None:
        """A part of the run is complete: one video, one epoch."""

    def message(self, text: str) -> None:
        """Something worth a line happened, such as a batch halved for lack of memory."""

    def stop_requested(self) -> bool:
        """Whether the run is to end early, in good order.

        Asked several times per second, also while nothing else happens.
        """
        return False
