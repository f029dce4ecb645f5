"""The training loop: epochs of steps, validation, checkpoints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tspcli.core.progress import Reporter
from tspcli.pretraining.data import RunData
from tspcli.pretraining.epoch_plan import BatchPlan, ValidationPlan
from tspcli.pretraining.loader import BatchFeed
from tspcli.pretraining.optim import ScheduledOptimizer
from tspcli.pretraining.run_state import Checkpointer, RunState
from tspcli.pretraining.trainer import StepFigures, Trainer
from tspcli.pretraining.training_log import (
    EPOCHS,
    TRAINING,
    VALIDATION,
    EpochResult,
    StepStatus,
    TensorBoard,
    mean_accuracy,
    named_figures,
    write_results,
)
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.pretraining.tsp_losses import Counts

_SPEED_OVER_STEPS = 20


@dataclass
class Loop:
    """One sitting of a run.

    Attributes:
        trainer: Steps and validates.
        optimizer: Its optimiser.
        recipe, execution: The settings.
        data: The clips.
        batches: This device's share of an epoch.
        feeds: Of ``train`` and ``valid``.
        checkpointer: Stores where the run stands.
        state: Where it stands.
        reporter: Receives the progress, on the first process.
        stop_requested: Asked before every step.
        tensorboard: On the first process, if wanted and installed.
    """

    trainer: Trainer
    optimizer: ScheduledOptimizer
    recipe: Recipe
    execution: Execution
    data: RunData
    batches: BatchPlan
    feeds: dict[str, BatchFeed]
    checkpointer: Checkpointer
    state: RunState
    reporter: Reporter
    stop_requested: Callable[[], bool]
    tensorboard: TensorBoard | None = None
    _recent: deque[tuple[float, float, int]] = field(
        default_factory=lambda: deque(maxlen=_SPEED_OVER_STEPS)
    )
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def _is_first(self) -> bool:
        return self.trainer.devices.is_first

    @property
    def _alphas(self) -> dict[str, float]:
        return {"action": self.recipe.action_alpha, "region": self.recipe.region_alpha}

    def run(self) -> bool:
        """Train to the last epoch.

        Returns:
            Whether the run was asked to stop before that.
        """
        while self.state.epoch < self.recipe.epochs:
            if self._train_epoch():
                return True
            self._end_epoch()
        return False

    def _train_epoch(self) -> bool:
        state, epoch = self.state, self.state.epoch
        order = self.data.plans["train"].order(epoch)
        self.trainer.set_training()
        feed = self.feeds["train"]
        self._recent.clear()
        self.reporter.start(TRAINING, self.batches.n_steps, state.step)
        began, waited_before = time.perf_counter(), feed.waited_s
        train_s, waited_s = state.train_s, state.waited_s
        for batch in feed(self.batches.epoch(epoch, state.step)):
            step = state.step
            # Dropout and its like draw from torch's generator; keyed anew, they can be resumed.
            torch.manual_seed(self._step_seed(epoch, step))
            counts = Counts(*self.batches.counts(order, step))
            rates = self.optimizer.learning_rates
            figures = self.trainer.step(batch, counts, self.optimizer, stop=self.stop_requested())
            state.step += 1
            _add_figures(state.sums, figures, counts)
            self._count_unreadable(state.unreadable)
            state.train_s = train_s + time.perf_counter() - began
            state.waited_s = waited_s + feed.waited_s - waited_before
            self._recent.append((time.perf_counter(), feed.waited_s, counts.clips))
            if figures.stop or state.step == self.batches.n_steps:
                with self.trainer.devices.failing_together():
                    self.trainer.require_finite()
            if self._is_first:
                self._tell(figures, rates)
                self._save_if_due(force=figures.stop)
            if figures.stop:
                return True
        if self._is_first and state.step:
            # Validation may take long; a kill during it shall not cost the epoch.
            self._save_if_due(force=True)
        return False

    def _count_unreadable(self, counts: dict[str, int]) -> None:
        """Count the clips that the last step or validation could not read, and show the first."""
        for clip in self.trainer.unreadable:
            if self._is_first and clip.video not in counts:
                self.reporter.message(f"{clip}; skipped, and counted from here on.")
            counts[clip.video] = counts.get(clip.video, 0) + 1

    def _step_seed(self, epoch: int, step: int) -> int:
        place = (epoch * self.batches.n_steps + step) * self.batches.world_size + self.batches.rank
        return (self.recipe.seed * 1_000_003 + place) % (1 << 63)

    def _tell(self, figures: StepFigures, rates: dict[str, float]) -> None:
        state = self.state
        done = state.epoch * self.batches.n_steps + state.step
        is_last = state.step == self.batches.n_steps
        if state.step % self.execution.log_every_steps and not is_last:
            return
        status = self._status(figures, rates)
        self.reporter.advance(TRAINING, status.step, status)
        if self.tensorboard is not None:
            self.tensorboard.step(done, status)

    def _status(self, figures: StepFigures, rates: dict[str, float]) -> StepStatus:
        state = self.state
        losses = {
            name.removesuffix("_loss") if name != "loss" else "total": value
            for name, value in named_figures(figures, self.recipe.heads, self._alphas).items()
            if name.endswith("loss")
        }
        sums = _mean_figures(state.sums)
        accuracies = {
            name.removesuffix("_accuracy"): value
            for name, value in named_figures(sums, self.recipe.heads, self._alphas).items()
            if name.endswith("_accuracy")
        }
        first, last = self._recent[0], self._recent[-1]
        elapsed_s = last[0] - first[0]
        clips = sum(count for _, _, count in self._recent) - first[2]
        speed = clips / elapsed_s if elapsed_s > 0 else 0.0
        wait = 100 * (last[1] - first[1]) / elapsed_s if elapsed_s > 0 else 0.0
        steps_left = (self.recipe.epochs - state.epoch) * self.batches.n_steps - state.step
        clips_left = steps_left * self.batches.batch_size * self.batches.world_size
        return StepStatus(
            epoch=state.epoch,
            epochs=self.recipe.epochs,
            step=state.step,
            n_steps=self.batches.n_steps,
            losses=losses,
            accuracies=accuracies,
            learning_rates=rates,
            clips_per_s=speed,
            wait_percent=min(wait, 100.0),
            left_s=clips_left / speed if speed else 0.0,
        )

    def _save_if_due(self, force: bool = False) -> None:
        every_s, every = self.execution.checkpoint_every_s, self.execution.checkpoint_every_steps
        due = (every_s > 0 and time.monotonic() - self._saved_at >= every_s) or (
            every > 0 and self.state.step % every == 0
        )
        if force or due:
            self.trainer.require_finite()
            self.checkpointer.save(self.state)
            self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        state = self.state
        began = time.perf_counter()
        plan = ValidationPlan(
            self.data.plans["valid"],
            self.recipe.batch_size,
            self.batches.rank,
            self.batches.world_size,
        )
        total = len(range(plan.rank, plan.clips.n_samples, plan.world_size))

        self.reporter.start(VALIDATION, total)

        def on_batch(done: int) -> None:
            if self._is_first:
                self.reporter.advance(VALIDATION, done)

        valid = self.trainer.validate(self.feeds["valid"](plan), on_batch)
        unreadable = {"train": state.unreadable, "valid": dict[str, int]()}
        self._count_unreadable(unreadable["valid"])
        heads = self.recipe.heads
        named = named_figures(valid, heads, self._alphas)
        score = mean_accuracy(named, heads)
        n_clips = self.data.plans["train"].n_samples
        result = EpochResult(
            epoch=state.epoch,
            train=named_figures(_mean_figures(state.sums), heads, self._alphas),
            valid=named,
            score=score,
            best=score > state.best_score,
            learning_rates=self.optimizer.rates_at(self.optimizer.steps - 1),
            clips_per_s=n_clips / state.train_s if state.train_s else 0.0,
            wait_percent=100 * state.waited_s / state.train_s if state.train_s else 0.0,
            train_s=state.train_s,
            valid_s=time.perf_counter() - began,
            unreadable={split: counts for split, counts in unreadable.items() if counts},
        )
        state.history.append(result)
        if result.best:
            state.best_epoch, state.best_score = result.epoch, score
        state.epoch += 1
        state.step = 0
        state.sums = [0.0] * 6
        state.unreadable = {}
        state.train_s = state.waited_s = 0.0
        if self._is_first:
            self.checkpointer.save_epoch(state, result)
            self._saved_at = time.monotonic()
            write_results(self.checkpointer.folder.path, state.history)
            if self.tensorboard is not None:
                self.tensorboard.epoch(state.epoch * self.batches.n_steps, result)
            self.reporter.result(result)
            self.reporter.advance(EPOCHS, state.epoch)


def _add_figures(sums: list[float], figures: StepFigures, counts: Counts) -> None:
    """Add a step's losses, times the clips that they are means over, and its hits."""
    sums[0] += figures.action_loss * counts.foreground
    sums[1] += figures.region_loss * counts.clips
    for place, value in enumerate(figures[2:6], start=2):
        sums[place] += float(value)


def _mean_figures(sums: list[float]) -> StepFigures:
    """The means over an epoch so far."""
    losses = sums[0] / max(sums[3], 1.0), sums[1] / max(sums[5], 1.0)
    return StepFigures(*losses, sums[2], sums[3], sums[4], sums[5])
