"""Steps of training on a simulated GPU: losses and parameters are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from tests.builders.ordering_calls import ORDERING_CALLS
from tests.builders.simulated_accelerator import Machine, Order
from tests.builders.simulated_torch import simulated
from tests.pretraining.test_execution import BATCH, RECIPE, batches
from tspcli.encoders import Heads, Preprocessing, TspModel
from tspcli.errors import TrainingError
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.loader import BatchFeed, ClipBatch
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_recipe import Execution
from tspcli.pretraining.tsp_losses import Counts

N_STEPS = 4


def steps(
    device: str,
    execution: Execution | None = None,
    spoil: Callable[[Trainer], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, Trainer]:
    """Losses of both heads, shape (steps, 2), and the parameters in one row."""
    torch.manual_seed(0)
    model = TspModel("tiny", Heads(3, True))
    trainer = Trainer(
        model,
        RECIPE,
        execution or Execution(),
        Devices(Placement(), device),
        Preprocessing(),
        "fp32",
    )
    optimizer = ScheduledOptimizer(build_optimizer(trainer.model, RECIPE), Schedule.of(RECIPE, 8))
    trainer.set_training()
    if spoil is not None:
        spoil(trainer)
    figures = []
    for batch in batches()[:N_STEPS]:
        counts = Counts(int((batch.action >= 0).sum()), BATCH)
        taken = batch if device == "cpu" else batch.pin_memory()
        figures.append(trainer.step(taken, counts, optimizer).figures)
    trainer.check_losses()
    means = [figure.means() for figure in figures]
    losses = [[mean["action_loss"], mean["region_loss"]] for mean in means]
    parameters = [value.detach().flatten().cpu() for value in trainer.model.parameters()]
    return np.array(losses), torch.cat(parameters).numpy(), trainer


@pytest.fixture(scope="module")
def on_cpu() -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    losses, parameters, _ = steps("cpu")
    return losses, parameters


@pytest.mark.parametrize(
    ("order", "execution"),
    [
        ("late", Execution()),
        ("random", Execution()),
        ("random", Execution(accumulate=2, channels_last=False)),
    ],
)
def test_losses_are_the_cpus(
    on_cpu: tuple[np.ndarray, np.ndarray], order: Order, execution: Execution
) -> None:
    expected = on_cpu if execution.accumulate == 1 else steps("cpu", execution)[:2]
    with simulated(Machine(n_devices=2, order=order, seed=2)):
        losses, parameters, trainer = steps("cuda:1", execution)
        assert trainer.devices.device.index == 1
        last = execution.channels_last is None
    assert trainer.memory_format is (torch.channels_last_3d if last else torch.contiguous_format)
    np.testing.assert_allclose(losses, expected[0], atol=2e-5)
    np.testing.assert_allclose(parameters, expected[1], atol=2e-5)


def test_the_loaders_own_thread_page_locks_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's loader does where it is told to, with whatever has a method of that name."""
    options: dict[str, Any] = {}

    def loader(*args: Any, **given: Any) -> list[ClipBatch]:
        options.update(given)
        return []

    monkeypatch.setattr(torch.utils.data, "DataLoader", loader)
    for pin in (False, True):
        assert not list(BatchFeed(mock.MagicMock(), workers=1, pin=pin)([]))
        assert options["pin_memory"] is pin
    batch = batches()[0]
    with simulated(Machine()) as machine:
        locked = torch.utils.data._utils.pin_memory.pin_memory(batch)
        for name in ("pixels", "action", "region", "weight"):
            assert machine.is_page_locked(getattr(locked, name))
            assert torch.equal(getattr(locked, name), getattr(batch, name))


def test_no_step_waits_for_the_device() -> None:
    machine = Machine()
    waits: list[dict[str, int]] = []

    def watch(trainer: Trainer) -> None:
        machine.waits.clear()
        check = trainer.check_losses

        def checked(run_ahead: int = 0) -> None:
            waits.append(dict(machine.waits))
            check(run_ahead)

        trainer.check_losses = checked  # type: ignore[method-assign]

    with simulated(machine):
        steps("cuda", spoil=watch)
    assert len(waits) == N_STEPS + 1
    # The optimiser and normalisation set up what they need in the first step.
    assert waits[0] == waits[-1]


@pytest.mark.parametrize(("without", "order"), ORDERING_CALLS["training"].items())
def test_a_call_that_is_left_out_is_noticed(without: str, order: Order) -> None:
    """Whoever reads the flag before the device has written it stops at a loss that was finite."""
    machine = Machine(order=order, without=(without,))
    with simulated(machine), pytest.raises(TrainingError):
        steps("cuda")
    assert machine.left_out


def test_a_loss_that_is_not_finite_is_found() -> None:
    def spoil(trainer: Trainer) -> None:
        inputs = trainer.inputs

        def spoilt(batch: ClipBatch) -> Any:
            clips, gvf, targets = inputs(batch)
            return clips * float("nan"), gvf, targets

        trainer.inputs = spoilt  # type: ignore[method-assign]

    with simulated(Machine()), pytest.raises(TrainingError):
        steps("cuda", spoil=spoil)
