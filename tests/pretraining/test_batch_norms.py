"""Batch norms of several devices: whose statistics validate, and what `sync` makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.encoders import Heads, TspModel
from tspcli.errors import TrainingError
from tspcli.pretraining import trainer as stepping
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.epoch_plan import ValidationPlan
from tspcli.pretraining.loader import BatchFeed, ClipBatch, UnreadableClip
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.tsp_losses import Counts


class Second(Devices):
    """A process that is told the statistics of another, the first."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__(Placement(), "cpu")
        self.first = first

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        for own, its in zip(tensors, self.first.buffers(), strict=True):
            own.copy_(its)


def test_validation_is_with_the_first_devices_statistics(small_set: SmallSet) -> None:
    inputs = RunInputs((small_set.videos,), small_set.train, small_set.valid, small_set.labels)
    data = load_data(inputs, FAST)

    def model(mean: float) -> TspModel:
        torch.manual_seed(0)
        made = TspModel("tiny", Heads(n_actions=3, region=True))
        for name, buffer in made.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(mean)
        return made

    def losses(trained: TspModel, devices: Devices) -> tuple[float, float]:
        trainer = Trainer(trained, FAST, QUIET, devices, data.preprocessing)
        feed = BatchFeed(data.loader("valid", QUIET))
        figures = trainer.validate(feed(ValidationPlan(data.plans["valid"], 7))).figures.means()
        return figures["action_loss"], figures["region_loss"]

    alone = Devices(Placement(), "cpu")
    assert losses(model(0.3), alone) != losses(model(0.0), alone)
    assert losses(model(0.3), Second(model(0.0))) == losses(model(0.0), alone)


def test_sync_converts_every_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Devices):
        def __init__(self) -> None:
            self.world_size, self.rank = 2, 0
            self.device = torch.device("cuda:0")

    wrapped: list[Any] = []
    monkeypatch.setattr(nn.Module, "to", lambda self, *args, **kwargs: self)
    monkeypatch.setattr(
        stepping, "DistributedDataParallel", lambda model, **given: wrapped.append(model)
    )
    preprocessing: Any = None
    for mode, synchronised in (("sync", True), ("train", False)):
        recipe = replace(FAST, batch_norm=mode)
        trainer = Trainer(TspModel("tiny"), recipe, QUIET, Two(), preprocessing)
        norms = [m for m in trainer.model.modules() if isinstance(m, _BatchNorm)]
        kinds = {isinstance(norm, nn.SyncBatchNorm) for norm in norms}
        assert norms and kinds == {synchronised}
    assert len(wrapped) == 2


def test_a_clip_that_cannot_be_read_is_told_before_the_step() -> None:
    """What would be computed of black pictures is nothing, and may fail in ways of its own."""
    devices = Devices(Placement(), "cpu")
    preprocessing: Any = None
    trainer = Trainer(TspModel("tiny"), FAST, QUIET, devices, preprocessing)
    clip = UnreadableClip("a.mp4", "a.mp4 at 1.00 s", "bits are missing")
    nothing = torch.zeros(1)
    batch = ClipBatch(nothing, nothing, nothing, None, nothing, ["a.mp4"], failed=[clip])
    optimizer: Any = None
    with pytest.raises(TrainingError, match=r"cannot be read: a\.mp4 at 1\.00 s"):
        trainer.step(batch, Counts(0, 1), optimizer)

    def batches() -> Iterator[ClipBatch]:
        yield batch

    with pytest.raises(TrainingError, match=r"cannot be read: a\.mp4 at 1\.00 s"):
        trainer.validate(batches())
