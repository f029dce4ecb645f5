"""How an experiment shows itself: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reproduction.stages import Stage, StageObserver
from tspcli.cli.console import live_bars, printable
from tspcli.core.text import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 60.0


@contextmanager
def watch(console: Console) -> Iterator[StageObserver]:
    """An observer that shows the run on ``console`` while the context is open."""
    if not console.is_terminal:
        yield PlainStages(console)
        return
    with live_bars(console, width=20) as display:
        yield LiveStages(console, display)


class PlainStages(StageObserver):
    """Lines, for logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._total = 0
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def planned(self, n_stages: int, n_kept: int) -> None:
        self._total = n_stages + 1  # the report
        self._print(f"{self._total} stages, {n_kept} of them done before.")

    def started(self, stage: Stage, goes_on: bool) -> None:
        self._next[stage.name] = time.monotonic() + _PLAIN_EVERY_S
        self._print(f"{stage.name}: {'goes on' if goes_on else 'begins'} ({stage.about})")

    def said(self, stage: Stage, text: str) -> None:
        if time.monotonic() >= self._next.get(stage.name, 0.0):
            self._next[stage.name] = time.monotonic() + _PLAIN_EVERY_S
            self._print(f"{stage.name}: {text}")

    def ended(self, stage: Stage, seconds: float, n_done: int, left_s: float | None) -> None:
        left = "" if left_s is None else f", about {clock(left_s)} left"
        if seconds:
            self._print(f"[{n_done}/{self._total}] {stage.name}: done in {clock(seconds)}{left}")

    def _print(self, text: str) -> None:
        with self._lock:
            self.console.print(printable(text), markup=False, soft_wrap=True)


class LiveStages(StageObserver):
    """A bar for the whole, and a line for each stage that runs."""

    def __init__(self, console: Console, display: Progress) -> None:
        self.console = console
        self.display = display
        self._whole: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def planned(self, n_stages: int, n_kept: int) -> None:
        self._whole = self.display.add_task("all stages", total=n_stages, figures="")

    def started(self, stage: Stage, goes_on: bool) -> None:
        self._tasks[stage.name] = self.display.add_task(stage.name, total=1, figures=stage.about)

    def said(self, stage: Stage, text: str) -> None:
        self.display.update(self._tasks[stage.name], figures=printable(text))

    def ended(self, stage: Stage, seconds: float, n_done: int, left_s: float | None) -> None:
        said = "" if left_s is None else f"about {clock(left_s)} left"
        if self._whole is not None:
            self.display.update(self._whole, completed=n_done, figures=said)
        if stage.name in self._tasks:
            self.display.remove_task(self._tasks.pop(stage.name))
            self.console.print(
                printable(f"{stage.name}: {stage.about}, {clock(seconds)}"),
                markup=False,
                soft_wrap=True,
            )
