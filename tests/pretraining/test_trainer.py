"""A step is launched without waiting for its device, and every device takes part in every piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.pretraining.conftest import FAST, QUIET
from tspcli.encoders import Heads, Preprocessing, TspModel
from tspcli.errors import TrainingError
from tspcli.pretraining import trainer as trainer_module
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.loader import ClipBatch
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.pretraining.tsp_losses import Counts


class Pretended(Devices):
    """One of several processes, on a device that need not be there."""

    def __init__(self, device: str, world_size: int = 1) -> None:
        self.placement = Placement(0, world_size, 0, world_size)
        self.rank, self.world_size = 0, world_size
        self.device = torch.device(device)
        self._joined = False


def clips(count: int, brightness: int = 100, name: str = "clip") -> ClipBatch:
    action = torch.arange(count) % 3
    return ClipBatch(
        torch.full((count, 4, 32, 32, 3), brightness, dtype=torch.uint8),
        action,
        torch.zeros(count, dtype=torch.int64),
        None,
        torch.ones(count),
        [name] * count,
    )


def built(
    devices: Devices, recipe: Recipe = FAST, execution: Execution = QUIET
) -> tuple[Trainer, ScheduledOptimizer]:
    torch.manual_seed(0)
    with devices.device:
        model = TspModel("tiny", Heads(3, True))
    trainer = Trainer(model, recipe, execution, devices, Preprocessing())
    optimizer = ScheduledOptimizer(build_optimizer(trainer.model, recipe), Schedule.of(recipe, 8))
    trainer.set_training()
    return trainer, optimizer


class Happened:
    """An event on a machine without its device."""

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, stream: None) -> None:
        pass


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Tensors without values: whatever wants to know one of them on the host fails."""
    monkeypatch.setattr(torch, "Event", Happened)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: None)
    # Parameters without values cannot be moved; they are made where they belong.
    monkeypatch.setattr(nn.Module, "to", lambda module, *where, **how: module)
    return FakeTensorMode(allow_non_fake_inputs=True)


def test_a_step_on_cuda_does_not_wait_for_the_device(
    pretended_cuda: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended_cuda:
        # Not the first: constants are kept per device, and simulated ones are kept for that.
        trainer, optimizer = built(Pretended("cuda:7"))
        # Both want a driver.
        monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
        monkeypatch.setattr(optimizer.optimizer, "step", lambda: None)
        done = trainer.step(clips(4), Counts(4, 4), optimizer)
        assert done.figures.values.device.type == "cuda"
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            bool(done.figures.total("action_loss") > 0)  # so a step that waited would have failed


def test_cuda_has_channels_last_and_a_fused_optimizer(pretended_cuda: FakeTensorMode) -> None:
    with pretended_cuda:
        trainer, optimizer = built(Pretended("cuda:7"))
        assert trainer.memory_format == torch.channels_last_3d
        assert optimizer.optimizer.param_groups[0]["fused"]
        plain = replace(QUIET, channels_last=False)
        assert (
            built(Pretended("cuda:7"), execution=plain)[0].memory_format != torch.channels_last_3d
        )
    trainer, optimizer = built(Pretended("cpu"))
    assert trainer.memory_format == torch.contiguous_format
    assert not optimizer.optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_that_is_not_finite_is_found_a_step_late_and_changes_nothing(fused: bool) -> None:
    trainer, optimizer = built(Pretended("cpu"), replace(FAST, warmup_epochs=0))
    trainer.run_ahead = 1
    if fused:
        sgd = torch.optim.SGD(trainer.model.parameters(), lr=0.1, momentum=0.9, fused=True)
        sgd.param_groups[0]["name"] = "fc"
        optimizer = ScheduledOptimizer(sgd, Schedule.of(FAST, 8))
    trainer.step(clips(3, name="first"), Counts(3, 3), optimizer)
    layer: Any = trainer.model.fc1
    good = layer.bias.detach().clone()
    with torch.no_grad():
        layer.bias[0] = float("nan")
    spoilt = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.step(clips(3, name="second"), Counts(3, 3), optimizer)  # nobody has looked yet
    with torch.no_grad():
        layer.bias.copy_(good)
    with pytest.raises(TrainingError) as raised:
        trainer.step(clips(3, name="third"), Counts(3, 3), optimizer)
    assert raised.value.data["clips"] == ["second"] * 3
    for parameter, before in zip(trainer.model.parameters(), spoilt, strict=True):
        assert torch.equal(parameter[~before.isnan()], before[~before.isnan()])


def test_storing_looks_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, optimizer = built(Pretended("cpu"))
    trainer.run_ahead = 5
    layer: Any = trainer.model.fc1
    with torch.no_grad():
        layer.bias[0] = float("inf")
    trainer.step(clips(3), Counts(3, 3), optimizer)
    with pytest.raises(TrainingError) as raised:
        trainer.require_finite()
    assert raised.value.data["clips"]


@pytest.mark.parametrize(("own", "together"), [(1, 3), (2, 3), (1, 1), (4, 8), (3, 7)])
def test_devices_compute_equally_many_pieces(
    monkeypatch: pytest.MonkeyPatch, own: int, together: int
) -> None:
    """Synchronised batch norms of all devices meet in each piece, else they wait for ever."""
    passes: list[int] = []

    class Counted(nn.Module):
        def __init__(self, model: Callable[..., Any], **given: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, frames: torch.Tensor, gvf: None) -> Any:
            passes.append(len(frames))
            return self.model(frames, gvf)

    monkeypatch.setattr(trainer_module, "DistributedDataParallel", Counted)
    monkeypatch.setattr(Counted, "no_sync", torch.enable_grad, raising=False)
    execution = replace(QUIET, accumulate=4)
    trainer, optimizer = built(Pretended("cpu", world_size=2), execution=execution)
    done = trainer.step(clips(own), Counts(together, together), optimizer)
    largest = -(-together // 2)
    assert len(passes) == min(4, largest)
    assert all(passes) and sum(passes) == max(own, len(passes))
    assert done.figures.to_dict()["region_loss"][1] == own  # what fills up does not count
