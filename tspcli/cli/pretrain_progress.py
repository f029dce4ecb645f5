"""How a training run shows itself: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tspcli.cli.console import live_bars, printable
from tspcli.core.text import clock, counted
from tspcli.pretraining.training_log import EpochResult, RunInfo, StepStatus, TrainingObserver

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 30.0


@contextmanager
def watch(console: Console) -> Iterator[TrainingObserver]:
    """An observer that shows the run on ``console`` while the context is open."""
    if not console.is_terminal:
        yield PlainObserver(console)
        return
    with live_bars(console) as display:
        yield LiveObserver(console, display)


def step_figures(status: StepStatus) -> str:
    """Losses, accuracies, learning rates, speed, wait and time left, in one line."""
    losses = " ".join(f"{name} {value:.3f}" for name, value in status.losses.items())
    accuracies = " ".join(f"{k} {100 * v:.1f}%" for k, v in status.accuracies.items())
    rates = " ".join(f"{k} {v:.2e}" for k, v in status.learning_rates.items() if v)
    return (
        f"loss {losses} | accuracy {accuracies} | lr {rates} | {status.clips_per_s:.1f} clips/s, "
        f"{status.wait_percent:.0f}% waiting for data, {clock(status.left_s)} left"
    )


def epoch_figures(result: EpochResult, epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {result.epoch} of 0–{epochs - 1}: training {_figures(result.train)}; "
        f"validation {_figures(result.valid)}; mean accuracy {100 * result.score:.2f}%"
        f"{' (best so far)' if result.best else ''}; {result.clips_per_s:.1f} clips/s, "
        f"{result.wait_percent:.0f}% waiting for data{_unreadable(result)}"
    )


def _unreadable(result: EpochResult) -> str:
    parts = [
        f"{counted(sum(counts.values()), 'clip')} of {counted(len(counts), 'video')} {what}"
        for split, what in (("train", "replaced in training"), ("valid", "left out of validation"))
        if (counts := result.unreadable.get(split))
    ]
    return f"; could not be read: {', '.join(parts)}" if parts else ""


def _figures(figures: Mapping[str, float]) -> str:
    parts = [f"loss {figures['loss']:.4f}"]
    parts += [
        f"{name.removesuffix('_accuracy')} {100 * value:.2f}%"
        for name, value in figures.items()
        if name.endswith("_accuracy")
    ]
    return ", ".join(parts)


class PlainObserver(TrainingObserver):
    """A line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._next = 0.0
        self._epochs = 0

    def started(self, info: RunInfo) -> None:
        self._epochs = int(info.recipe["epochs"])
        self._print(run_line(info))

    def caching(self, video: str, done: int, total: int) -> None:
        if self._due() or done == total:
            self._print(f"clip cache: {done}/{total} videos")

    def checking(self, video: str, done: int, total: int) -> None:
        if self._due() or done == total:
            self._print(f"trying to read: {done}/{total} videos")

    def stepped(self, status: StepStatus) -> None:
        if self._due():
            place = f"epoch {status.epoch}, step {status.step}/{status.n_steps}"
            self._print(f"{place}: {step_figures(status)}")

    def epoch_ended(self, result: EpochResult) -> None:
        self._print(epoch_figures(result, self._epochs))

    def message(self, text: str) -> None:
        self._print(text)

    def _due(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _PLAIN_EVERY_S
        return True

    def _print(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)


class LiveObserver(TrainingObserver):
    """Bars for the epoch and for what it is doing, with the current figures."""

    def __init__(self, console: Console, display: Progress) -> None:
        self.console = console
        self.display = display
        self._tasks: dict[str, TaskID] = {}
        self._epochs = 0

    def started(self, info: RunInfo) -> None:
        self._epochs = int(info.recipe["epochs"])
        self.message(run_line(info))
        self._show("epochs", info.first_epoch, self._epochs, "")

    def caching(self, video: str, done: int, total: int) -> None:
        self._show("clip cache", done, total, printable(video))

    def checking(self, video: str, done: int, total: int) -> None:
        self._show("trying to read", done, total, printable(video))

    def stepped(self, status: StepStatus) -> None:
        self._show("epochs", status.epoch, status.epochs, "")
        self._show("training", status.step, status.n_steps, step_figures(status))

    def validating(self, done: int, total: int) -> None:
        self._show("validation", done, total, "clips")

    def epoch_ended(self, result: EpochResult) -> None:
        self._show("epochs", result.epoch + 1, self._epochs, "")
        self.message(epoch_figures(result, self._epochs))

    def message(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)

    def _show(self, name: str, done: int, total: int, figures: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self.display.add_task(name, total=total, figures="")
        self.display.update(self._tasks[name], completed=done, total=total, figures=figures)


def run_line(info: RunInfo) -> str:
    """A run in one line."""
    where = f"{info.world_size} × {info.device}" if info.world_size > 1 else info.device
    chance = ", ".join(f"{head} {100 * level:.2f}%" for head, level in info.chance.items())
    again = ""
    if info.first_epoch >= int(info.recipe["epochs"]):
        again = " All epochs are done."
    elif info.first_epoch or info.first_step:
        again = f" Goes on at epoch {info.first_epoch}, step {info.first_step}."
    return (
        f"{info.recipe['name']}: {info.recipe['backbone']} on {where} ({info.precision}), "
        f"{info.n_train_clips} clips an epoch in {info.n_steps} steps, {info.n_valid_clips} clips "
        f"of validation; chance level: {chance}.{again}"
    )
