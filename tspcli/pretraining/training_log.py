"""What a training run reports, and where its figures go.

They go to one JSON line per epoch, to TensorBoard events and to a picture of the curves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from tspcli.core.files import replacing
from tspcli.core.text import MALFORMED, clock, counted, parse_json
from tspcli.errors import TrainingError

READING, CACHE = "trying to read", "clip cache"
EPOCHS, TRAINING, VALIDATION = "epochs", "training", "validation"
"""The tasks of a run, counted in videos, videos, epochs, steps and clips. The last two start anew
in every epoch; :class:`StepStatus` are the figures of the training."""


FEW_STEPS = 20
"""Fewer steps in an epoch than this are worth a hint: the recipes warm up for two epochs."""


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step.

    Attributes:
        out: The run's folder.
        recipe: Resolved, as plain values.
        n_train_clips, n_valid_clips: Clips of an epoch and of a validation.
        n_steps: Steps of an epoch.
        device, precision: Resolved.
        world_size: Devices.
        first_epoch, first_step: Where the run begins; not 0 when it is resumed.
        chance: Chance levels of the heads on the validation clips, as fractions of 1.
        clips: How videos are sampled and frames scaled, in words.
    """

    out: str
    recipe: Mapping[str, Any]
    n_train_clips: int
    n_valid_clips: int
    n_steps: int
    device: str
    precision: str
    world_size: int
    first_epoch: int
    first_step: int
    chance: Mapping[str, float]
    clips: str = ""

    def line(self) -> str:
        """The run, its clips and, where an epoch is short, what would make it longer."""
        epochs = int(self.recipe["epochs"])
        where = f"{self.world_size} × {self.device}" if self.world_size > 1 else self.device
        chance = ", ".join(f"{head} {100 * level:.2f}%" for head, level in self.chance.items())
        again = ""
        if self.first_epoch >= epochs:
            again = " All epochs are done."
        elif self.first_epoch or self.first_step:
            again = f" Resumes at epoch {self.first_epoch}, step {self.first_step}."
        return (
            f"{self.recipe['name']}: {self.recipe['backbone']} on {where} ({self.precision}), "
            f"{counted(epochs, 'epoch')} of {counted(self.n_train_clips, 'clip')} in "
            f"{counted(self.n_steps, 'step')}, {counted(self.n_valid_clips, 'validation clip')}; "
            f"chance level: {chance}.{again}"
            + (f"\nSampling: {self.clips}." if self.clips else "")
            + self._hint()
        )

    def _hint(self) -> str:
        if self.n_steps >= FEW_STEPS or self.first_epoch >= int(self.recipe["epochs"]):
            return ""
        size, clips = self.recipe["batch_size"], self.recipe["clips_per_segment"]
        return (
            f"\nAn epoch has only {counted(self.n_steps, 'step')} and the weights change once per "
            f"step; a smaller --batch-size ({size}), more --clips-per-segment ({clips}) or more "
            f"--epochs ({self.recipe['epochs']}) give more."
        )


@dataclass(frozen=True)
class StepStatus:
    """How training stands after a step.

    Attributes:
        epoch, epochs: Current epoch, counted from 0, and how many there are.
        step, n_steps: Steps done in this epoch, and how many there are.
        losses: ``action``, ``region`` and ``total`` of this step.
        accuracies: Of the heads over this epoch's clips so far, as fractions of 1.
        learning_rates: Of this step, by group.
        clips_per_s: Over the last steps, all devices together.
        wait_percent: Share of the time spent waiting for clips, over the last steps.
        left_s: Estimated seconds of training left, validations left out.
    """

    epoch: int
    epochs: int
    step: int
    n_steps: int
    losses: Mapping[str, float]
    accuracies: Mapping[str, float]
    learning_rates: Mapping[str, float]
    clips_per_s: float
    wait_percent: float
    left_s: float

    def line(self) -> str:
        """Losses, accuracies, learning rates, speed, waiting and time left, in one line."""
        losses = " ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        accuracies = " ".join(f"{k} {100 * v:.1f}%" for k, v in self.accuracies.items())
        rates = " ".join(f"{k} {v:.2e}" for k, v in self.learning_rates.items() if v)
        return (
            f"epoch {self.epoch}, loss {losses} | accuracy {accuracies} | lr {rates} | "
            f"{self.clips_per_s:.1f} clips/s, {self.wait_percent:.0f}% waiting for data, "
            f"{clock(self.left_s)} left"
        )


@dataclass(frozen=True)
class EpochResult:
    """One line of ``results.jsonl``.

    Attributes:
        epoch: Counted from 0.
        train, valid: Losses and accuracies (fractions of 1) by name, such as ``action_accuracy``.
        score: Mean accuracy of the heads on validation; the best epoch has the highest.
        best: Whether it was the highest so far.
        learning_rates: At the epoch's end, by group.
        clips_per_s: Of training.
        wait_percent: Share of the training time spent waiting for clips.
        train_s, valid_s: Seconds.
        unreadable: ``train``: for each video of which clips could not be read, in the place of how
            many others were taken; ``valid``: how many were left out.
    """

    epoch: int
    train: Mapping[str, float]
    valid: Mapping[str, float]
    score: float
    best: bool
    learning_rates: Mapping[str, float]
    clips_per_s: float
    wait_percent: float
    train_s: float
    valid_s: float
    unreadable: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def line(self) -> str:
        """The epoch in one line."""
        return (
            f"epoch {self.epoch}: training {_figures(self.train)}; "
            f"validation {_figures(self.valid)}; mean accuracy {100 * self.score:.2f}%"
            f"{' (best so far)' if self.best else ''}; {self.clips_per_s:.1f} clips/s, "
            f"{self.wait_percent:.0f}% waiting for data{self._unreadable_words()}"
        )

    def _unreadable_words(self) -> str:
        parts = [
            f"{counted(sum(counts.values()), 'clip')} of {counted(len(counts), 'video')} {what}"
            for split, what in (
                ("train", "replaced in training"),
                ("valid", "left out of validation"),
            )
            if (counts := self.unreadable.get(split))
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


@dataclass
class PretrainReport:
    """The outcome of a run.

    Attributes:
        out: The run's folder.
        epochs: One result per epoch, those of earlier sittings included.
        best_epoch: Counted from 0; -1 if no epoch ended.
        best_score: Its mean accuracy of the heads.
        stopped: Whether the run was asked to stop before its end.
        notes: What was out of the ordinary.
        left_out: Videos that could not be read before training, with the reason.
    """

    out: str
    epochs: list[EpochResult] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = 0.0
    stopped: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


RESULTS_FILE = "results.jsonl"
CURVES_FILE = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3")


def named_figures(means: Mapping[str, float], alphas: Mapping[str, float]) -> dict[str, float]:
    """Means of a meter's figures, with the weighted sum of its losses as ``loss``."""
    parts = [
        alpha * means[f"{name}_loss"] for name, alpha in alphas.items() if f"{name}_loss" in means
    ]
    return {"loss": sum(parts), **means}


def without_suffix(figures: Mapping[str, float], suffix: str) -> dict[str, float]:
    """The figures whose names end with a suffix, by what stands before it."""
    return {k.removesuffix(suffix): v for k, v in figures.items() if k.endswith(suffix)}


def mean_accuracy(figures: Mapping[str, float]) -> float:
    """The mean accuracy of the heads, by which the best epoch is chosen."""
    accuracies = without_suffix(figures, "_accuracy")
    return sum(accuracies.values()) / len(accuracies)


def write_results(folder: Path, epochs: Sequence[EpochResult]) -> None:
    """Write all epochs' results, one JSON object per line; the file is complete at any instant."""
    with replacing(folder / RESULTS_FILE) as aside:
        aside.write_text(
            "".join(json.dumps(asdict(epoch), allow_nan=False) + "\n" for epoch in epochs)
        )


def read_results(path: str | Path) -> list[EpochResult]:
    """The results of a run's folder or of its ``results.jsonl``.

    Raises:
        TrainingError: If there are none.
    """
    path = Path(path)
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        return [EpochResult(**parse_json(line)) for line in file.read_text().splitlines()]
    except MALFORMED as error:
        raise TrainingError(
            f"{file} holds no results ({error}).", remedy="Give the folder of a training run."
        ) from error


class TensorBoard:
    """TensorBoard events of a run, if the package is there.

    Args:
        folder: Of the run.
        first_step: Events from here on, of a sitting that was killed, are dropped.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(
            str(folder / TENSORBOARD_FOLDER), purge_step=first_step if first_step else None
        )

    @staticmethod
    def is_installed() -> bool:
        """Whether events can be written."""
        from importlib.util import find_spec

        return find_spec("tensorboard") is not None

    def step(self, step: int, status: StepStatus) -> None:
        """Write a step's figures."""
        for name, value in status.losses.items():
            self._writer.add_scalar(f"train/{name}_loss", value, step)
        for name, value in status.learning_rates.items():
            self._writer.add_scalar(f"learning_rate/{name}", value, step)
        self._writer.add_scalar("speed/clips_per_s", status.clips_per_s, step)
        self._writer.add_scalar("speed/wait_percent", status.wait_percent, step)

    def epoch(self, step: int, result: EpochResult) -> None:
        """Write an epoch's figures at the step after its last."""
        for split, figures in (("train_epoch", result.train), ("valid", result.valid)):
            for name, value in figures.items():
                self._writer.add_scalar(f"{split}/{name}", value, step)
        self._writer.add_scalar("valid/mean_accuracy", result.score, step)
        for split, counts in result.unreadable.items():
            self._writer.add_scalar(f"unreadable_clips/{split}", sum(counts.values()), step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def draw_curves(
    folder: Path, epochs: Sequence[EpochResult], chance: Mapping[str, float]
) -> Path | None:
    """Draw losses and accuracies over the epochs into the run's folder.

    Args:
        folder: Of the run.
        epochs: The results.
        chance: Chance levels by head, drawn as lines.

    Returns:
        The picture; None if matplotlib is not installed or there is nothing to draw.
    """
    from importlib.util import find_spec

    if not epochs or find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracies, rates = figure.subplots(1, 3)
    numbers = [epoch.epoch for epoch in epochs]
    names = [name for name in epochs[0].valid if name != "loss"]
    subjects = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    colours = dict(zip(subjects, cycle(_COLOURS)))
    for name in names:
        subject, _, what = name.rpartition("_")
        axes, scale = (losses, 1.0) if what == "loss" else (accuracies, 100.0)
        for split, style in (("train", "--"), ("valid", "-")):
            values = [scale * getattr(epoch, split)[name] for epoch in epochs]
            label = f"{subject}, {'training' if split == 'train' else 'validation'}"
            axes.plot(numbers, values, style, color=colours[subject], marker=".", label=label)
    for head, level in chance.items():
        if head in colours:
            label = f"{head}, chance"
            accuracies.axhline(100 * level, color=colours[head], lw=0.8, ls=":", label=label)
    best = max(epochs, key=lambda epoch: epoch.score)
    accuracies.axvline(best.epoch, color="0.6", lw=0.8)
    accuracies.set_title(f"best epoch {best.epoch}: mean {100 * best.score:.2f} %", fontsize=9)
    for group, colour in (("backbone", "0.2"), ("fc", "#1b9e77")):
        values = [epoch.learning_rates.get(group, 0.0) for epoch in epochs]
        if any(values):
            rates.plot(numbers, values, color=colour, marker=".", label=group)
    rates.set_yscale("log")
    for axes, title in (
        (losses, "loss"),
        (accuracies, "accuracy, %"),
        (rates, "learning rate at the epoch's end"),
    ):
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    if rates.get_legend_handles_labels()[0]:
        rates.legend(fontsize=8)
    handles, names = accuracies.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=8)
    path = folder / CURVES_FILE
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=120)
    return path
