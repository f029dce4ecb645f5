"""How a run shows itself: a live display on a terminal, plain lines elsewhere.

What a run over videos says at its end.

How ``tsp localize`` shows its training and its figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tspcli.cli.console import err_console, live_bars, out_console, printable
from tspcli.core.text import clock, counted
from tspcli.extraction import Observer, Progress, VideoResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import TaskID

    from tspcli.core.stop import Stopper
    from tspcli.extraction import ExtractReport
    from tspcli.localization.evaluation import Evaluation


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


def summarize(console: Console, report: ExtractReport, *, of: str = "") -> None:
    """Tell what became of the videos, what helps those that failed, and how fast it went.

    Args:
        console: Where to.
        report: Of the run.
        of: What the videos became, if that is not said already.
    """
    from tspcli.extraction.run_report import STATUSES

    for result in report.videos:
        name = printable(result.path or result.key)
        if result.status in ("failed", "skipped"):
            console.print(
                f"{result.status}: {name}: {result.reason}: {printable(result.detail or '')}",
                style="red" if result.status == "failed" else "yellow",
                markup=False,
                soft_wrap=True,
            )
        elif result.warnings:
            text = printable("; ".join(result.warnings))
            console.print(f"note: {name}: {text}", style="yellow", markup=False, soft_wrap=True)
    for reason, remedy, count in report.remedies:
        console.print(
            f"{reason} ({counted(count, 'video')}): {printable(remedy)}",
            markup=False,
            soft_wrap=True,
        )
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
    last = f"{report.out}: {became}.{speed} Report: {report.path}"
    console.print(printable(last), markup=False, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """A line on stderr."""
    err_console().print(printable(text), markup=False, soft_wrap=True, style=style)


@contextmanager
def watch_training() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Steps as a bar on a terminal, epochs as lines everywhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = err_console()
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    progress = Progress(*texts, console=console, transient=True, disable=not console.is_terminal)

    def observe(event: str, values: Mapping[str, Any]) -> None:
        if event == "step":
            progress.update(
                task,
                description=f"epoch {values['epoch']}/{values['epochs']}",
                completed=values["done"],
                total=values["of"],
            )
        else:
            line = _TRAINING_LINES[event](values)
            progress.console.print(printable(line), markup=False, soft_wrap=True)

    with progress:
        task = progress.add_task("", total=None)
        yield observe


def _data_line(values: Mapping[str, Any]) -> str:
    text = f"{values['n_videos']} videos in {values['n_windows']} windows"
    text += f" ({values['n_empty']} without actions left out), {values['n_valid']} to validate."
    for part, role in (("missing", "training"), ("valid_missing", "validation")):
        if missing := values[part]:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            text += f" {len(missing)} annotated {role} videos have no features: {shown}."
    return text


def _epoch_line(values: Mapping[str, Any]) -> str:
    text = f"epoch {values['epoch']}/{values['epochs']}: loss {values['train_loss']:.4f}"
    if "valid_loss" in values:
        text += f", validation {values['valid_loss']:.4f}"
    return text


_TRAINING_LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data": _data_line,
    "classes": lambda v: f"class head: {v['accuracy']:.1%} of {v['n_samples']} training samples.",
    "resumed": lambda v: f"going on after epoch {v['epoch']}.",
    "epoch": _epoch_line,
}


def show_evaluation(evaluation: Evaluation) -> None:
    """The tables of both metrics on stdout."""
    from rich.table import Table

    console = out_console()
    if evaluation.detection is not None:
        table = Table("tIoU", "mAP %", title="Detection")
        for tiou in evaluation.detection.tious:
            table.add_row(f"{tiou:.2f}", f"{100 * evaluation.detection.map_at(tiou):.2f}")
        table.add_section()
        table.add_row("average", f"{100 * evaluation.detection.average_map:.2f}")
        console.print(table)
    table = Table("", "%", title="Proposals")
    for count in (1, 10, 100):
        recall = evaluation.proposals.ar_at(count)
        table.add_row(f"AR@{count}", "beyond" if recall is None else f"{100 * recall:.2f}")
    table.add_row("AUC", f"{100 * evaluation.proposals.auc:.2f}")
    console.print(table)
