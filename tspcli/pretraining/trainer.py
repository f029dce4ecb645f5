"""One step of training, and one pass of validation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tspcli.encoders.backbones import BackboneSpec, backbone_spec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import Logits, TspModel
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.distributed import Devices
from tspcli.pretraining.loader import ClipBatch, UnreadableClip
from tspcli.pretraining.optim import ScheduledOptimizer, batch_norms, freeze_batch_norms
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.pretraining.tsp_losses import (
    Counts,
    Meter,
    Targets,
    add_figures,
    figure_names,
    total_loss,
    tsp_losses,
)

_NOT_FINITE = "not_finite"
"""A figure of steps: parts of the loss that are not finite."""


@dataclass(frozen=True)
class StepOutcome:
    """What a step came to, over all devices.

    Attributes:
        figures: Losses and hits; still on the device.
        stop: Whether some process was asked to stop.
        unreadable: Clips that could not be read, for which the run need not stop.
    """

    figures: Meter
    stop: bool = False
    unreadable: list[UnreadableClip] = field(default_factory=list)


class _Unchecked(NamedTuple):
    """A step of which the host does not know yet whether its loss was finite.

    Attributes:
        broken: A copy of the device's flag on the host, once ``done`` has happened.
        done: None where there is nothing to wait for.
        figures: Of the step.
        names: The clips of this device.
    """

    broken: Tensor
    done: torch.Event | None
    figures: Meter
    names: list[str]


class Trainer:
    """A model on one device of a run: takes steps and validates.

    A step on an accelerator is launched without waiting for it; whether its loss was finite is
    checked while the next one runs (:attr:`run_ahead`). Until then the device itself leaves the
    parameters alone from the first loss on that is not finite.

    Args:
        model: On the CPU, with its initial weights.
        recipe: What is learned.
        execution: How it is computed.
        devices: Where.
        preprocessing: Mean and deviation of the frames.
        precision: Resolved: ``fp32``, ``tf32`` or ``bf16``.

    Attributes:
        figures: Names of what steps and validations measure.
        run_ahead: Steps that may be launched before the loss of an earlier one is checked.
    """

    def __init__(
        self,
        model: TspModel,
        recipe: Recipe,
        execution: Execution,
        devices: Devices,
        preprocessing: Preprocessing,
        precision: str = "fp32",
    ) -> None:
        self.recipe = recipe
        self.execution = execution
        self.devices = devices
        self.preprocessing = preprocessing
        self.precision = precision
        self.figures = figure_names(recipe.heads)
        on_cuda = devices.device.type == "cuda"
        self.run_ahead = 0 if devices.device.type == "cpu" else 1
        self._unchecked: deque[_Unchecked] = deque()
        channels_last = execution.channels_last
        if channels_last is None:
            channels_last = on_cuda
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        if recipe.batch_norm == "sync" and devices.world_size > 1:
            if not on_cuda:
                raise UsageError(
                    "Synchronised batch norm needs CUDA devices.",
                    remedy="Use batch_norm train or frozen on CPUs.",
                    option="--batch-norm",
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if recipe.batch_norm == "frozen":
            freeze_batch_norms(model)
        if execution.checkpoint_activations:
            checkpoint_blocks(model, backbone_spec(recipe.backbone))
        self.model: TspModel = model.to(devices.device)
        if channels_last:
            cast(Any, self.model).to(memory_format=torch.channels_last_3d)  # torch's stubs lack it
        self.forward: Callable[..., Logits] = self.model
        if execution.compile:
            self.forward = torch.compile(self.model)
        if devices.world_size > 1:
            ids = None if devices.device.type == "cpu" else [devices.device.index]
            self.forward = DistributedDataParallel(self.forward, device_ids=ids)
        self._broken: Tensor | bool = False

    # -- training ----------------------------------------------------------------------------------

    def set_training(self) -> None:
        """Put the model into training mode; frozen batch norms stay as they are."""
        self.model.train()
        if self.recipe.batch_norm == "frozen":
            freeze_batch_norms(self.model)

    def step(
        self,
        batch: ClipBatch,
        counts: Counts,
        optimizer: ScheduledOptimizer,
        *,
        stop: bool = False,
    ) -> StepOutcome:
        """One update of the parameters.

        Args:
            batch: This device's clips.
            counts: Of all devices' clips.
            optimizer: Whose parameters are the model's.
            stop: Whether this process was asked to stop; all learn of it.

        Raises:
            TrainingError: On all devices, if a clip of one cannot be read, or if a loss was not
                finite, with the clips of its batch; the parameters are as before that step.
        """
        stopping, unreadable, failed = self.devices.sum_numbers(
            stop, len(batch.unreadable), len(batch.failed)
        )
        if failed:
            self._stop_at_clips(batch.failed)
        figures = Meter([*self.figures, _NOT_FINITE], self.devices.device)
        for parameter in self.model.parameters():
            parameter.grad = None
        # As many on every device: synchronised batch norms meet in each of them.
        largest = -(-counts.clips // self.devices.world_size)
        pieces = batch.pieces(min(self.execution.accumulate, largest))
        for place, piece in enumerate(pieces):
            with self._synchronised(place == len(pieces) - 1):
                self._accumulate(piece, counts, figures)
        self.devices.sum(figures.values)
        broken = self._broken | (figures.total(_NOT_FINITE) > 0)
        self._broken = broken
        optimizer.step(skip=broken)
        self._unchecked.append(self._ask_whether_finite(broken, figures, batch.names))
        self.check_losses(self.run_ahead)
        return StepOutcome(figures, stopping > 0, self._all(batch.unreadable) if unreadable else [])

    def _accumulate(self, piece: ClipBatch, counts: Counts, figures: Meter) -> None:
        """Add the gradients and the figures of one piece of the batch."""
        clips, gvf, targets = self.inputs(piece)
        with self.arithmetic():
            logits = self.forward(clips, gvf)
        losses = tsp_losses(logits, targets)
        total = total_loss(losses, counts, self.recipe.alphas)
        # DDP takes the mean of the devices' gradients, and the parts of the loss are to be summed.
        (total * self.devices.world_size).backward()
        add_figures(figures, losses, logits, targets)
        figures.add(_NOT_FINITE, ~total.detach().isfinite(), 1)

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Let the devices exchange gradients for the last piece of a batch alone."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            yield
        else:
            with self.forward.no_sync():
                yield

    def _ask_whether_finite(self, broken: Tensor, figures: Meter, names: list[str]) -> _Unchecked:
        if self.devices.device.type == "cpu":
            return _Unchecked(broken, None, figures, names)
        copy = torch.empty((), dtype=torch.bool, pin_memory=True)
        copy.copy_(broken, non_blocking=True)
        done = torch.Event(self.devices.device)
        done.record(torch.accelerator.current_stream(self.devices.device))
        return _Unchecked(copy, done, figures, names)

    def check_losses(self, run_ahead: int = 0) -> None:
        """See that the losses of all steps so far were finite, but for the latest few.

        Args:
            run_ahead: How many steps need not be waited for.

        Raises:
            TrainingError: On all devices, with the clips of the first step whose loss was not.
        """
        while len(self._unchecked) > run_ahead:
            step = self._unchecked.popleft()
            if step.done is not None:
                step.done.synchronize()
            if bool(step.broken):
                self._unchecked.clear()
                self._stop_at_batch(step)

    def _all(self, clips: list[UnreadableClip]) -> list[UnreadableClip]:
        return [clip for part in self.devices.gather(clips) for clip in part]

    def _stop_at_clips(self, failed: list[UnreadableClip]) -> NoReturn:
        clips = self._all(failed)
        others = f", and {len(clips) - 1} more of the same batch" if len(clips) > 1 else ""
        raise TrainingError(
            f"A clip cannot be read: {clips[0]}{others}.",
            remedy="Repair the video, take it out of the tables, or skip what cannot be read: "
            "--resume --on-unreadable skip.",
            clips=[clip.clip for clip in clips],
        )

    def _stop_at_batch(self, step: _Unchecked) -> NoReturn:
        names = [name for part in self.devices.gather(step.names) for name in part]
        raise TrainingError(
            f"The loss is not finite ({self._weighted(step.figures)}) in the batch of these clips: "
            f"{', '.join(names)}.",
            remedy="Look at these clips and the global features of their videos; lower the "
            "learning rate if they are in order. The last checkpoint is from before this batch.",
            clips=names,
        )

    def _weighted(self, figures: Meter) -> str:
        means = figures.means()
        return ", ".join(
            f"{name} {alpha:g} × {means[f'{name}_loss']:g}"
            for name, alpha in self.recipe.alphas.items()
            if f"{name}_loss" in means
        )

    def require_finite(self) -> None:
        """See that the model can be stored: neither a loss nor a parameter or statistic overflowed.

        Raises:
            TrainingError: With the first that did.
        """
        self.check_losses()
        tensors = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
        broken = [name for name, fine in zip(tensors, finite, strict=True) if not fine]
        if broken:
            raise TrainingError(
                f"Training left the range of numbers: {broken[0]} is not finite, and so are "
                f"{len(broken)} of {len(tensors)} of the model's tensors.",
                remedy="Start again with lower learning rates. The last checkpoint is from before.",
                tensor=broken[0],
            )

    # -- validation --------------------------------------------------------------------------------

    def validate(
        self, batches: Iterable[ClipBatch], on_batch: Callable[[int], None] | None = None
    ) -> StepOutcome:
        """Losses and hits over this device's clips and all others', each clip counted once.

        Args:
            batches: This device's.
            on_batch: Called with the number of clips done on this device.

        Raises:
            TrainingError: On all devices, if a clip of one cannot be read or a loss is not finite.
        """
        self.model.eval()
        # Running statistics of batch norms differ between devices; the first one's are kept.
        self.devices.copy_from_first(self.model.buffers())
        figures = Meter(self.figures, self.devices.device)
        done = 0
        unreadable: list[UnreadableClip] = []
        failed: list[UnreadableClip] = []
        with torch.inference_mode(), self.arithmetic():
            for batch in batches:
                unreadable += batch.unreadable
                failed += batch.failed
                if failed:
                    break
                clips, gvf, targets = self.inputs(batch)
                # Not through DDP: devices may have different numbers of batches.
                logits = self.model(clips, gvf)
                add_figures(figures, tsp_losses(logits, targets), logits, targets)
                done += len(batch)
                if on_batch is not None:
                    on_batch(done)
        n_unreadable, n_failed = self.devices.sum_numbers(len(unreadable), len(failed))
        if n_failed:
            self._stop_at_clips(failed)
        self.devices.sum(figures.values)
        if not all(map(math.isfinite, figures.means().values())):
            raise TrainingError(
                f"The validation loss is not finite ({self._weighted(figures)}).",
                remedy="Start again with lower learning rates.",
                split="valid",
            )
        return StepOutcome(figures, unreadable=self._all(unreadable) if n_unreadable else [])

    # -- both --------------------------------------------------------------------------------------

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor | None, Targets]:
        """A batch on the device.

        Returns:
            Clips (B, 3, T, h, w), normalised; global features (B, D) if there are any; targets.
        """

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(self.devices.device, non_blocking=True)

        pixels = moved(batch.pixels)
        count, length = pixels.shape[:2]
        frames = self.preprocessing.normalize(pixels.flatten(0, 1))
        clips = frames.unflatten(0, (count, length)).transpose(1, 2)
        clips = clips.contiguous(memory_format=self.memory_format)
        targets = Targets.of(moved(batch.action), moved(batch.region), moved(batch.weight))
        return clips, None if batch.gvf is None else moved(batch.gvf), targets

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.precision == "bf16":
            return torch.autocast(self.devices.device.type, dtype=torch.bfloat16)
        return nullcontext()


def checkpoint_blocks(model: TspModel, spec: BackboneSpec) -> None:
    """Let the backbone's blocks discard their activations and compute them again backwards.

    The second pass does not update the running statistics of batch norms, so that they are the same
    as without.
    """
    for block in spec.find_blocks(model.features):
        if any(True for _ in block.parameters()):
            _checkpoint_block(block)


def _checkpoint_block(block: nn.Module) -> None:
    plain = block.forward
    norms = [norm for norm in batch_norms(block) if norm.num_batches_tracked is not None]

    @contextmanager
    def without_statistics() -> Iterator[None]:
        momenta = [norm.momentum for norm in norms]
        counts = [_batch_count(norm).clone() for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum, count in zip(norms, momenta, counts, strict=True):
                norm.momentum = momentum
                _batch_count(norm).copy_(count)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), without_statistics()

    def forward(*inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return plain(*inputs)
        return checkpoint(plain, *inputs, use_reentrant=False, context_fn=contexts)

    block.forward = forward


def _batch_count(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked
