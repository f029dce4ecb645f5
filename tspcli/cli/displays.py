"""How a run is shown: bars on a terminal, plain lines elsewhere; and its summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from tspcli.cli.console import err_console, live_bars, out_console, printable, say, warn
from tspcli.core.progress import Reporter
from tspcli.core.stop import Stopper, stoppable
from tspcli.core.text import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from tspcli.extraction import ExtractReport
    from tspcli.localization.evaluation import Evaluation


PLAIN_EVERY_S = 30.0
"""Seconds from one line of a task to the next."""


@contextmanager
def watch(
    console: Console | None = None, stop_requested: Callable[[], bool] = lambda: False
) -> Iterator[Reporter]:
    """A reporter that shows a run while the context is open.

    Args:
        console: Where; stderr by default.
        stop_requested: Whether the run is to end early.
    """
    console = console or err_console()
    if not console.is_terminal:
        yield PlainLines(console, stop_requested)
        return
    with live_bars(console) as display:
        yield LiveBars(console, stop_requested, display)


def stopping_extraction(out: object) -> AbstractContextManager[Stopper]:
    """Let signals stop a run that writes the store ``out``."""
    return stoppable(
        say,
        stopping="Stopping: videos under way are finished first. Once more stops at once.",
        farewell=f"Interrupted. Finished videos are kept next to {out}; the same command resumes.",
    )


class Display(Reporter):
    """What bars and plain lines have in common. Its methods may be called from any thread."""

    def __init__(self, console: Console, stop_requested: Callable[[], bool]) -> None:
        self.console = console
        self.stop_requested = stop_requested  # type: ignore[method-assign]
        self._totals: dict[str, int] = {}

    def result(self, result: Any) -> None:
        if text := result.line():
            style = "red" if text.startswith("failed") else None
            say(text, style, console=self.console)

    def message(self, text: str) -> None:
        say(text, "yellow", console=self.console)


class PlainLines(Display):
    """A line per task now and then, for logs."""

    def __init__(self, console: Console, stop_requested: Callable[[], bool]) -> None:
        super().__init__(console, stop_requested)
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def start(self, task: str, total: int, done: int = 0, about: Any = "") -> None:
        self._totals[task] = total
        self._next[task] = time.monotonic() + PLAIN_EVERY_S
        if about:
            say(_text(about), console=self.console)

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        with self._lock:
            if time.monotonic() < self._next[task]:
                return
            self._next[task] = time.monotonic() + PLAIN_EVERY_S
        text = _text(figures)
        say(f"{task}: {done}/{self._totals[task]}{text and f', {text}'}", console=self.console)


class LiveBars(Display):
    """A bar per task, with its current figures."""

    def __init__(
        self, console: Console, stop_requested: Callable[[], bool], display: Progress
    ) -> None:
        super().__init__(console, stop_requested)
        self.display = display
        self._tasks: dict[str, TaskID] = {}

    def start(self, task: str, total: int, done: int = 0, about: Any = "") -> None:
        self._totals[task] = total
        if task not in self._tasks:
            self._tasks[task] = self.display.add_task(task, total=total, figures="")
        figures = printable(_text(about))
        self.display.reset(self._tasks[task], total=total, completed=done, figures=figures)

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        if (place := self._tasks.get(task)) is None:
            return
        self.display.update(place, completed=done, figures=printable(_text(figures)))
        # One bar stays: of several tasks, the longest.
        if done >= self._totals[task] and len(self._tasks) > 1:
            self.display.remove_task(self._tasks.pop(task))


def _text(about: Any) -> str:
    return about if isinstance(about, str) else about.line()


def summarize(report: ExtractReport, *, of: str = "") -> None:
    """Say what became of the videos, what helps those that failed, and how fast it went.

    Args:
        report: Of the run.
        of: What the videos became, where that is not said already.
    """
    from tspcli.extraction.run_report import STATUSES

    for result in report.videos:
        if text := result.line():
            say(text, "red" if result.status == "failed" else "yellow")
        elif result.warnings:
            warn(f"{result.path or result.key}: {'; '.join(result.warnings)}")
    for reason, remedy, count in report.remedies:
        say(f"{reason} ({counted(count, 'video')}): {remedy}")
    counts = {status: len(report.with_status(status)) for status in STATUSES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    speed = ""
    if report.n_clips and report.wall_s:
        speed = (
            f" {report.video_s:.1f} s of video, {counted(report.n_clips, 'clip')} in "
            f"{report.wall_s:.1f} s: {report.video_s / report.wall_s:.1f} times real time, "
            f"limited by {report.bottleneck}."
        )
    became = f"{said or 'nothing to do'}{of and f' ({of})'}"
    say(f"{report.out}: {became}.{speed} Report: {report.path}")


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the tables of both metrics on stdout, and the AP of each class, the highest first."""
    from rich.table import Table
    from rich.text import Text

    console = out_console()
    if (found := evaluation.detection) is not None:
        # The headline comes last, where the eye is: there may be hundreds of classes.
        title = f"AP per class, mean over tIoU {found.tious[0]:g} to {found.tious[-1]:g}"
        table = Table("class", "AP %", "actions", title=title)
        classes = zip(found.ap.mean(axis=0), found.labels, found.n_per_class, strict=True)
        for value, label, count in sorted(classes, reverse=True):
            table.add_row(Text(printable(label)), f"{100 * value:.2f}", str(count))
        console.print(table)
        table = Table("tIoU", "mAP %", title="Detection")
        for tiou in found.tious:
            table.add_row(f"{tiou:.2f}", f"{100 * found.map_at(tiou):.2f}")
        table.add_section()
        table.add_row("average", f"{100 * found.average_map:.2f}")
        console.print(table)
    table = Table("", "%", title="Proposals")
    for count in (1, 10, 100):
        recall = evaluation.proposals.ar_at(count)
        table.add_row(f"AR@{count}", "beyond" if recall is None else f"{100 * recall:.2f}")
    table.add_row("AUC", f"{100 * evaluation.proposals.auc:.2f}")
    console.print(table)
