"""The training loop: epochs of steps, validation, checkpoints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tspcli.pretraining.data import RunContext, RunData
from tspcli.pretraining.epoch_plan import BatchPlan
from tspcli.pretraining.loader import BatchFeed, UnreadableClip
from tspcli.pretraining.optim import ScheduledOptimizer
from tspcli.pretraining.run_state import Checkpointer, RunState
from tspcli.pretraining.trainer import StepOutcome, Trainer
from tspcli.pretraining.training_log import (
    EPOCHS,
    TRAINING,
    VALIDATION,
    EpochResult,
    StepStatus,
    TensorBoard,
    mean_accuracy,
    named_figures,
    without_suffix,
    write_results,
)
from tspcli.pretraining.tsp_losses import Counts, Meter

_SPEED_OVER_STEPS = 20


@dataclass
class Loop:
    """One sitting of a run.

    Attributes:
        context: Settings, devices and the reporter.
        data: The clips.
        trainer: Steps and validates.
        optimizer: Its optimiser.
        feeds: Of ``train`` and ``valid``.
        checkpointer: Stores where the run stands.
        state: Where it stands.
        stop_requested: Asked before every step.
        tensorboard: On the first process, if wanted and installed.
    """

    context: RunContext
    data: RunData
    trainer: Trainer
    optimizer: ScheduledOptimizer
    feeds: dict[str, BatchFeed]
    checkpointer: Checkpointer
    state: RunState
    stop_requested: Callable[[], bool]
    tensorboard: TensorBoard | None = None
    _batches: BatchPlan = field(init=False)
    _meter: Meter = field(init=False)
    _recent: deque[tuple[float, float, int]] = field(
        default_factory=lambda: deque(maxlen=_SPEED_OVER_STEPS)
    )
    _saved_at: float = field(default_factory=time.monotonic)
    _has_reported: bool = False

    def __post_init__(self) -> None:
        context = self.context
        self._batches = self.data.batches(context.recipe, context.devices)
        self._meter = Meter(self.trainer.figures, context.devices.device)
        self._meter.load(self.state.figures)

    def run(self) -> bool:
        """Train to the last epoch.

        Returns:
            Whether the run was asked to stop before that.
        """
        while self.state.epoch < self.context.recipe.epochs:
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
        self.context.reporter.start(TRAINING, self._batches.n_steps, state.step)
        began, waited_before = time.perf_counter(), feed.waited_s
        train_s, waited_s = state.train_s, state.waited_s
        for batch in feed(self._batches.epoch(epoch, state.step)):
            step = state.step
            if not self._recent:
                # From the first batch on: until then the loader processes were starting.
                self._recent.append((time.perf_counter(), feed.waited_s, 0))
            # Dropout and its like draw from torch's generator; keyed anew, they can be resumed.
            torch.manual_seed(self._step_seed(epoch, step))
            counts = Counts(*self._batches.counts(order, step))
            rates = self.optimizer.learning_rates
            done = self.trainer.step(batch, counts, self.optimizer, stop=self.stop_requested())
            state.step += 1
            self._meter.update(done.figures)
            self._count_unreadable(done.unreadable, state.unreadable)
            state.train_s = train_s + time.perf_counter() - began
            state.waited_s = waited_s + feed.waited_s - waited_before
            self._recent.append((time.perf_counter(), feed.waited_s, counts.clips))
            if done.stop or state.step == self._batches.n_steps:
                with self.context.devices.failing_together():
                    self.trainer.require_finite()
            if self.context.devices.is_first:
                self._report(done, rates)
                self._save_if_due(force=done.stop)
            if done.stop:
                return True
        if self.context.devices.is_first and state.step:
            # Validation may take long; a kill during it shall not cost the epoch.
            self._save_if_due(force=True)
        return False

    def _count_unreadable(self, clips: list[UnreadableClip], counts: dict[str, int]) -> None:
        """Count clips that could not be read by video, and report the first of each."""
        for clip in clips:
            if self.context.devices.is_first and clip.video not in counts:
                self.context.reporter.message(f"{clip}; skipped, and counted from here on.")
            counts[clip.video] = counts.get(clip.video, 0) + 1

    def _step_seed(self, epoch: int, step: int) -> int:
        place = (
            epoch * self._batches.n_steps + step
        ) * self._batches.world_size + self._batches.rank
        return (self.context.recipe.seed * 1_000_003 + place) % (1 << 63)

    def _report(self, step: StepOutcome, rates: dict[str, float]) -> None:
        state = self.state
        done = state.epoch * self._batches.n_steps + state.step
        is_last = state.step == self._batches.n_steps
        is_due = is_last or not state.step % self.context.execution.log_every_steps
        if not is_due and self._has_reported:
            return
        status = self._status(step, rates)
        if not self._has_reported:
            self.context.reporter.message(f"First step: {status.line()}, at this step's speed.")
            self._has_reported = True
        self.context.reporter.advance(TRAINING, status.step, status)
        if not is_due:
            return
        if self.tensorboard is not None:
            self.tensorboard.step(done, status)

    def _status(self, step: StepOutcome, rates: dict[str, float]) -> StepStatus:
        state = self.state
        figures = named_figures(step.figures.means(), self.context.recipe.alphas)
        first, last = self._recent[0], self._recent[-1]
        elapsed_s = last[0] - first[0]
        clips = sum(count for _, _, count in self._recent) - first[2]
        speed = clips / elapsed_s if elapsed_s > 0 else 0.0
        wait = 100 * (last[1] - first[1]) / elapsed_s if elapsed_s > 0 else 0.0
        steps_left = (self.context.recipe.epochs - state.epoch) * self._batches.n_steps - state.step
        clips_left = steps_left * self._batches.batch_size * self._batches.world_size
        return StepStatus(
            epoch=state.epoch,
            epochs=self.context.recipe.epochs,
            step=state.step,
            n_steps=self._batches.n_steps,
            losses={"total": figures["loss"], **without_suffix(figures, "_loss")},
            accuracies=without_suffix(self._meter.means(), "_accuracy"),
            learning_rates=rates,
            clips_per_s=speed,
            wait_percent=min(wait, 100.0),
            left_s=clips_left / speed if speed else 0.0,
        )

    def _save_if_due(self, force: bool = False) -> None:
        every_s, every = (
            self.context.execution.checkpoint_every_s,
            self.context.execution.checkpoint_every_steps,
        )
        due = (every_s > 0 and time.monotonic() - self._saved_at >= every_s) or (
            every > 0 and self.state.step % every == 0
        )
        if force or due:
            self.trainer.require_finite()
            self.state.figures = self._meter.to_dict()
            self.checkpointer.save(self.state)
            self._saved_at = time.monotonic()

    def _end_epoch(self) -> None:
        state, context = self.state, self.context
        began = time.perf_counter()
        plan = self.data.validation(context.recipe, context.devices)

        context.reporter.start(VALIDATION, plan.n_clips)

        def on_batch(done: int) -> None:
            context.reporter.advance(VALIDATION, done)

        done = self.trainer.validate(self.feeds["valid"](plan), on_batch)
        unreadable = {"train": state.unreadable, "valid": dict[str, int]()}
        self._count_unreadable(done.unreadable, unreadable["valid"])
        valid = named_figures(done.figures.means(), context.recipe.alphas)
        score = mean_accuracy(valid)
        n_clips = self.data.plans["train"].n_samples
        result = EpochResult(
            epoch=state.epoch,
            train=named_figures(self._meter.means(), context.recipe.alphas),
            valid=valid,
            score=score,
            best=score > state.best_score,
            learning_rates=self.optimizer.rates_at(self.optimizer.steps - 1),
            clips_per_s=n_clips / state.train_s if state.train_s else 0.0,
            wait_percent=100 * state.waited_s / state.train_s if state.train_s else 0.0,
            train_s=state.train_s,
            valid_s=time.perf_counter() - began,
            unreadable={split: counts for split, counts in unreadable.items() if counts},
        )
        self._meter.load({})
        state.begin_epoch(result)
        if context.devices.is_first:
            self.checkpointer.save_epoch(state, result)
            self._saved_at = time.monotonic()
            write_results(self.checkpointer.folder.path, state.history)
            if self.tensorboard is not None:
                self.tensorboard.epoch(state.epoch * self._batches.n_steps, result)
            context.reporter.result(result)
            context.reporter.advance(EPOCHS, state.epoch)
