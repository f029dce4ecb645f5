"""One step of training, and one pass of validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import Logits, TspModel
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.distributed import Devices
from tspcli.pretraining.loader import ClipBatch, UnreadableClip
from tspcli.pretraining.optim import ScheduledOptimizer, batch_norms, freeze_batch_norms
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.pretraining.tsp_losses import Counts, head_hits, tsp_losses

ACTION_LOSS, REGION_LOSS, HITS, STOP, UNREADABLE, FAILED, TOTAL_LOSS = 0, 1, 2, 6, 7, 8, 9
"""Places in the figures of a step: two losses, four counts of hits, a request to stop, clips that
could not be read, and what is differentiated."""
N_FIGURES = 10


class StepFigures(NamedTuple):
    """What a step (or a validation) came to, over all devices.

    Attributes:
        action_loss, region_loss: Means over the clips that they are about.
        action_right, action_clips, region_right, region_clips: Hits of the heads and clips.
        stop: Whether some process was asked to stop.
        unreadable: Clips that could not be read, and for which the run need not stop.
        failed: Clips for which it has to.
        total_loss: The losses times their weights; 0 of a validation.
    """

    action_loss: float
    region_loss: float
    action_right: float
    action_clips: float
    region_right: float
    region_clips: float
    stop: bool = False
    unreadable: int = 0
    failed: int = 0
    total_loss: float = 0.0


class Trainer:
    """A model with its optimiser on one device of a run.

    Args:
        model: On the CPU, with its initial weights.
        recipe: What is learned.
        execution: How it is computed.
        devices: Where.
        preprocessing: Mean and deviation of the frames.
        precision: Resolved: ``fp32``, ``tf32`` or ``bf16``.

    Attributes:
        unreadable: Clips of the last step or validation that could not be read, on any device.
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
        self.unreadable: list[UnreadableClip] = []
        self.memory_format = (
            torch.channels_last_3d if execution.channels_last else torch.contiguous_format
        )
        if recipe.batch_norm == "sync" and devices.world_size > 1:
            if devices.device.type != "cuda":
                raise UsageError(
                    "Synchronised batch norm needs CUDA devices.",
                    remedy="Use batch_norm train or frozen on CPUs.",
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if recipe.batch_norm == "frozen":
            freeze_batch_norms(model)
        if execution.checkpoint_activations:
            checkpoint_blocks(model)
        self.model: TspModel = model.to(devices.device)
        if execution.channels_last:
            cast(Any, self.model).to(memory_format=torch.channels_last_3d)  # torch's stubs lack it
        self.forward: Callable[..., Logits] = self.model
        if execution.compile:
            self.forward = torch.compile(self.model)
        if devices.world_size > 1:
            ids = [devices.device.index] if devices.device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.forward, device_ids=ids)

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
    ) -> StepFigures:
        """One update of the parameters.

        Args:
            batch: This device's clips.
            counts: Of all devices' clips.
            optimizer: Whose parameters are the model's.
            stop: Whether this process was asked to stop; all learn of it.

        Raises:
            TrainingError: On all devices, if a clip of one cannot be read, or if the loss is not
                finite, with the clips of the batch; the parameters are as before the step.
        """
        figures = torch.zeros(N_FIGURES, dtype=torch.float64, device=self.devices.device)
        figures[STOP] = float(stop)
        figures[UNREADABLE], figures[FAILED] = len(batch.unreadable), len(batch.failed)
        # Said at once: what would be computed of it is nothing.
        if self.devices.sum(figures[FAILED].clone()) > 0:
            self._stop_at_clips(batch.failed)
        for parameter in self.model.parameters():
            parameter.grad = None
        pieces = batch.pieces(self.execution.accumulate)
        for place, piece in enumerate(pieces):
            with self._synchronised(place == len(pieces) - 1):
                self._accumulate(piece, counts, figures)
        self.devices.sum(figures)
        result = _figures(figures)
        self.unreadable = self._all(batch.unreadable) if result.unreadable else []
        if not _finite(result):
            self._stop_at_batch(batch, result)
        optimizer.step()
        return result

    def _accumulate(self, piece: ClipBatch, counts: Counts, figures: Tensor) -> None:
        """Add the gradients and the figures of one piece of the batch."""
        clips, gvf = self.inputs(piece)
        action = piece.action.to(self.devices.device, non_blocking=True)
        region = piece.region.to(self.devices.device, non_blocking=True)
        weight = piece.weight.to(self.devices.device, non_blocking=True)
        with self.arithmetic():
            logits = self.forward(clips, gvf)
        losses = tsp_losses(
            logits,
            action,
            region,
            counts=counts,
            action_alpha=self.recipe.action_alpha,
            region_alpha=self.recipe.region_alpha,
            weight=weight,
        )
        # DDP takes the mean of the devices' gradients, and the parts of the loss are to be summed.
        (losses.total * self.devices.world_size).backward()
        figures[ACTION_LOSS] += losses.action.double()
        figures[REGION_LOSS] += losses.region.double()
        figures[TOTAL_LOSS] += losses.total.detach().double()
        with torch.no_grad():
            figures[HITS:STOP] += head_hits(logits, action, region, weight)

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Let the devices exchange gradients for the last piece of a batch alone."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            yield
        else:
            with self.forward.no_sync():
                yield

    def _all(self, clips: list[UnreadableClip]) -> list[UnreadableClip]:
        return [clip for part in self.devices.gather(clips) for clip in part]

    def _stop_at_clips(self, failed: list[UnreadableClip]) -> None:
        clips = self._all(failed)
        others = f", and {len(clips) - 1} more of the same batch" if len(clips) > 1 else ""
        raise TrainingError(
            f"A clip cannot be read: {clips[0]}{others}.",
            remedy="Repair the video, take it out of the tables, or go on without what cannot be "
            "read: --resume --on-unreadable skip.",
        )

    def _stop_at_batch(self, batch: ClipBatch, figures: StepFigures) -> None:
        names = [name for part in self.devices.gather(batch.names) for name in part]
        raise TrainingError(
            f"The loss is not finite (action {figures.action_loss:g}, region "
            f"{figures.region_loss:g}, together {figures.total_loss:g}) in the batch of these "
            f"clips: {', '.join(names)}.",
            remedy="Look at these clips and the global features of their videos; lower the "
            "learning rate if they are in order. The last checkpoint is from before this batch.",
        )

    def require_finite(self) -> None:
        """See that the model can be stored: no parameter and no statistic of it overflowed.

        Raises:
            TrainingError: With the first that did.
        """
        tensors = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
        broken = [name for name, fine in zip(tensors, finite, strict=True) if not fine]
        if broken:
            raise TrainingError(
                f"Training left the range of numbers: {broken[0]} is not finite, and so are "
                f"{len(broken)} of {len(tensors)} of the model's tensors.",
                remedy="Start again with lower learning rates. The last checkpoint is from before.",
            )

    # -- validation --------------------------------------------------------------------------------

    def validate(
        self, batches: Iterable[ClipBatch], on_batch: Callable[[int], None] | None = None
    ) -> StepFigures:
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
        figures = torch.zeros(N_FIGURES, dtype=torch.float64, device=self.devices.device)
        done = 0
        unreadable: list[UnreadableClip] = []
        failed: list[UnreadableClip] = []
        with torch.inference_mode(), self.arithmetic():
            for batch in batches:
                unreadable += batch.unreadable
                failed += batch.failed
                if failed:
                    break
                clips, gvf = self.inputs(batch)
                action = batch.action.to(self.devices.device)
                region = batch.region.to(self.devices.device)
                weight = batch.weight.to(self.devices.device)
                # Not through DDP: devices may have different numbers of batches.
                logits = self.model(clips, gvf)
                sums = tsp_losses(logits, action, region, counts=Counts(1, 1), weight=weight)
                figures[ACTION_LOSS] += sums.action.double()
                figures[REGION_LOSS] += sums.region.double()
                figures[HITS:STOP] += head_hits(logits, action, region, weight)
                done += len(batch)
                if on_batch is not None:
                    on_batch(done)
        figures[UNREADABLE], figures[FAILED] = len(unreadable), len(failed)
        self.devices.sum(figures)
        if figures[FAILED] > 0:
            self._stop_at_clips(failed)
        self.unreadable = self._all(unreadable) if figures[UNREADABLE] > 0 else []
        figures[ACTION_LOSS] /= figures[HITS + 1].clamp(min=1)
        figures[REGION_LOSS] /= figures[HITS + 3].clamp(min=1)
        result = _figures(figures)
        if not _finite(result):
            raise TrainingError(
                f"The validation loss is not finite (action {result.action_loss:g}, region "
                f"{result.region_loss:g}).",
                remedy="Start again with lower learning rates.",
            )
        return result

    # -- both --------------------------------------------------------------------------------------

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor | None]:
        """Clips (B, 3, T, h, w), normalised, and global features, on the device."""
        pixels = batch.pixels.to(self.devices.device, non_blocking=True)
        count, length = pixels.shape[:2]
        frames = self.preprocessing.normalize(pixels.flatten(0, 1))
        clips = frames.unflatten(0, (count, length)).transpose(1, 2)
        clips = clips.contiguous(memory_format=self.memory_format)
        gvf = None
        if batch.gvf is not None:
            gvf = batch.gvf.to(self.devices.device, non_blocking=True)
        return clips, gvf

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.precision == "bf16":
            return torch.autocast(self.devices.device.type, dtype=torch.bfloat16)
        return nullcontext()


def checkpoint_blocks(model: TspModel) -> None:
    """Let the blocks of the backbone forget their activations and compute them again backwards.

    The second pass leaves the running statistics of batch norms alone, so that they are the same as
    without.
    """
    for child in model.features.children():
        blocks = list(child) if isinstance(child, nn.Sequential) else [child]
        for block in blocks:
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


def _figures(values: Tensor) -> StepFigures:
    numbers = values.tolist()
    unreadable, failed = int(numbers[UNREADABLE]), int(numbers[FAILED])
    total = numbers[TOTAL_LOSS]
    return StepFigures._make([*numbers[:STOP], numbers[STOP] > 0, unreadable, failed, total])


def _finite(figures: StepFigures) -> bool:
    losses = (figures.action_loss, figures.region_loss, figures.total_loss)
    return all(abs(value) < float("inf") for value in losses)
