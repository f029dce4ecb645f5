"""What a training run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        first_epoch, first_step: Where the run begins; not 0 when it goes on.
        chance: Chance levels of the heads on the validation clips, as fractions of 1.
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


@dataclass
class PretrainReport:
    """The outcome of a run.

    Attributes:
        out: The run's folder.
        epochs: One result an epoch, those of earlier sittings included.
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


class TrainingObserver:
    """Watches a run; override what is of interest. Called on the first process alone."""

    def started(self, info: RunInfo) -> None:
        """Data and model are ready."""

    def caching(self, video: str, done: int, total: int) -> None:
        """A video went into the clip cache."""

    def checking(self, video: str, done: int, total: int) -> None:
        """A video was tried before training."""

    def stepped(self, status: StepStatus) -> None:
        """A step was done."""

    def validating(self, done: int, total: int) -> None:
        """Some clips of the validation are done, on this device."""

    def epoch_ended(self, result: EpochResult) -> None:
        """An epoch was validated and stored."""

    def message(self, text: str) -> None:
        """Something worth a line."""
