"""How a run shows itself: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tspcli.cli.console import live_bars, printable
from tspcli.extraction import Observer, Progress, VideoResult
from tspcli.wording import clock, counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import TaskID

    from tspcli.cli.stopping import Stopper

_PLAIN_EVERY_S = 30.0


@contextmanager
def watch(console: Console, stopper: Stopper | None = None) -> Iterator[Observer]:
    """An observer that shows the run on ``console``, and stops it when a signal came."""
    if not console.is_terminal:
        yield PlainObserver(console, stopper)
        return
    from rich.progress import TimeElapsedColumn

    with live_bars(console, TimeElapsedColumn()) as display:
        task = display.add_task("loading", total=None, figures="")
        yield LiveObserver(console, stopper, display, task)


def figures(progress: Progress) -> str:
    """Clips a second, speed against real time, the bottleneck and the time left, in one line."""
    elapsed_s = progress.elapsed_s or 1e-9
    left = "" if progress.left_s is None else f", {clock(progress.left_s)} left"
    failed = f", {progress.n_failed} failed" if progress.n_failed else ""
    return (
        f"{progress.n_clips / elapsed_s:.1f} clips/s, "
        f"{progress.video_s / elapsed_s:.1f} s of video/s, "
        f"limited by {progress.bottleneck}{left}{failed}"
    )


class StoppingObserver(Observer):
    """Ends the run early after SIGTERM or Ctrl-C."""

    def __init__(self, console: Console, stopper: Stopper | None) -> None:
        self.console = console
        self._stopper = stopper

    def wants_stop(self) -> bool:
        if self._stopper is None:
            return False
        self._stopper.attended = True
        return self._stopper.requested


class PlainObserver(StoppingObserver):
    """A line now and then, for logs."""

    def __init__(self, console: Console, stopper: Stopper | None) -> None:
        super().__init__(console, stopper)
        self._next = 0.0

    def started(self, progress: Progress, n_kept: int) -> None:
        kept = f", {n_kept} kept from an earlier run" if n_kept else ""
        self._print(f"{counted(progress.n_videos, 'video')} to do{kept}")
        self._next = time.monotonic() + _PLAIN_EVERY_S

    def progressed(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN_EVERY_S
            self._print(f"{progress.n_ended}/{progress.n_videos} videos, {figures(progress)}")

    def message(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)


class LiveObserver(StoppingObserver):
    """A progress bar that is always true."""

    def __init__(
        self, console: Console, stopper: Stopper | None, display: Display, task: TaskID
    ) -> None:
        super().__init__(console, stopper)
        self.display = display
        self.task = task

    def started(self, progress: Progress, n_kept: int) -> None:
        kept = f" ({n_kept} kept)" if n_kept else ""
        self.display.update(self.task, description=f"videos{kept}", total=progress.n_videos)

    def progressed(self, progress: Progress) -> None:
        self.display.update(self.task, completed=progress.n_ended, figures=figures(progress))

    def video_ended(self, result: VideoResult) -> None:
        if result.status == "failed":
            text = f"{result.path}: {result.reason}: {result.detail}"
            self.console.print(printable(text), style="red", markup=False, soft_wrap=True)

    def message(self, text: str) -> None:
        self.console.print(printable(text), style="yellow", markup=False, soft_wrap=True)
