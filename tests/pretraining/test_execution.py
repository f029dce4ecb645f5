"""Faster and smaller ways to compute a step leave its losses where they were."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.pretraining.conftest import FAST
from tspcli.encoders import Heads, Preprocessing, TspModel
from tspcli.encoders.precision import arithmetic, resolve_precision
from tspcli.errors import UsageError
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.loader import ClipBatch
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_recipe import Execution, Recipe
from tspcli.pretraining.tsp_losses import Counts

N_STEPS, BATCH = 20, 6
RECIPE = replace(
    FAST, milestones=(2,), warmup_epochs=1, stem_lr=3e-4, backbone_lr=6e-4, head_lr=3e-3
)


def batches() -> list[ClipBatch]:
    """Clips with something to learn: bright ones are actions, and the class is the colour."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(N_STEPS):
        action = rng.integers(-1, 3, BATCH)
        pixels = rng.integers(0, 120, (BATCH, 4, 32, 32, 3))
        for place, label in enumerate(action):
            if label >= 0:
                pixels[place, ..., label] += 130
        made.append(
            ClipBatch(
                torch.from_numpy(pixels.astype(np.uint8)),
                torch.from_numpy(action),
                torch.from_numpy((action < 0).astype(np.int64)),
                None,
                torch.ones(BATCH),
                [""] * BATCH,
            )
        )
    return made


def train(
    execution: Execution, recipe: Recipe = RECIPE, precision: str = "fp32"
) -> tuple[np.ndarray, TspModel]:
    """Losses of both heads over the steps, shape (20, 2), and the model."""
    torch.manual_seed(0)
    model = TspModel("tiny", Heads(3, True))
    trainer = Trainer(
        model, recipe, execution, Devices(Placement(), "cpu"), Preprocessing(), precision
    )
    optimizer = ScheduledOptimizer(build_optimizer(trainer.model, recipe), Schedule.of(recipe, 8))
    trainer.set_training()
    losses = []
    with arithmetic(torch.device("cpu"), precision, training=True):
        for batch in batches():
            counts = Counts(int((batch.action >= 0).sum()), BATCH)
            figures = trainer.step(batch, counts, optimizer).figures.means()
            losses.append([figures["action_loss"], figures["region_loss"]])
    return np.array(losses), trainer.model


@pytest.fixture(scope="module")
def plain() -> tuple[np.ndarray, TspModel]:
    torch.set_num_threads(1)
    return train(Execution())


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of any loss in the first 20 steps."""
    return float(np.abs(one - other).max())


def test_the_losses_fall(plain: tuple[np.ndarray, TspModel]) -> None:
    losses, _ = plain
    assert losses[-4:].mean() < 0.95 * losses[:4].mean()


def test_bf16(plain: tuple[np.ndarray, TspModel]) -> None:
    losses, model = train(Execution(), precision="bf16")
    assert 0 < distance(losses, plain[0]) < 0.15
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_channels_last(plain: tuple[np.ndarray, TspModel]) -> None:
    losses, model = train(Execution(channels_last=True))
    assert distance(losses[:5], plain[0][:5]) < 1e-4
    assert distance(losses, plain[0]) < 0.03
    weight = model.features.layer1[0].conv1[0][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_activation_checkpointing(plain: tuple[np.ndarray, TspModel]) -> None:
    losses, model = train(Execution(checkpoint_activations=True))
    assert distance(losses, plain[0]) < 1e-6
    # The second forward pass must not move the batch norms' statistics a second time.
    for name, value in plain[1].state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_recomputes() -> None:
    """Fewer bytes are kept for the backward pass, or the option would do nothing."""

    def kept(execution: Execution) -> int:
        torch.manual_seed(0)
        trainer = Trainer(
            TspModel("tiny", Heads(3, True)),
            RECIPE,
            execution,
            Devices(Placement(), "cpu"),
            Preprocessing(),
        )
        trainer.set_training()
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        clips, _, _ = trainer.inputs(batches()[0])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            trainer.forward(clips, None)
        return total

    assert kept(Execution(checkpoint_activations=True)) < 0.5 * kept(Execution())


def test_accumulation_with_frozen_batch_norms_is_exact() -> None:
    recipe = replace(RECIPE, batch_norm="frozen")
    whole, model = train(Execution(), recipe)
    pieces, other = train(Execution(accumulate=3), recipe)
    assert distance(whole, pieces) < 1e-5
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_accumulation_with_statistics_of_the_pieces(plain: tuple[np.ndarray, TspModel]) -> None:
    """Batch norms see the pieces alone, as they would on smaller devices."""
    losses, _ = train(Execution(accumulate=2))
    assert 0 < distance(losses[:1], plain[0][:1]) < 0.1
    assert distance(losses, plain[0]) < 0.4


def test_frozen_batch_norms_do_not_move() -> None:
    torch.manual_seed(0)
    before = TspModel("tiny", Heads(3, True)).state_dict()
    _, model = train(Execution(), replace(RECIPE, batch_norm="frozen"))
    norms = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm3d)
        for key in module.state_dict()
    }
    assert norms
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in norms), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled(plain: tuple[np.ndarray, TspModel]) -> None:
    losses, model = train(Execution(compile=True))
    assert distance(losses[:5], plain[0][:5]) < 1e-4
    assert distance(losses, plain[0]) < 0.03
    assert set(model.state_dict()) == set(plain[1].state_dict())


def test_what_does_not_go_together() -> None:
    with pytest.raises(UsageError, match="cannot be combined"):
        Execution(compile=True, checkpoint_activations=True)
    with pytest.raises(UsageError, match="CUDA"):
        resolve_precision("tf32", torch.device("cpu"))
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("execution", "precision", "bound"),
    [
        (Execution(), "fp32", 1e-2),
        (Execution(channels_last=True), "bf16", 0.1),
        (Execution(checkpoint_activations=True), "bf16", 0.1),
    ],
)
def test_on_cuda(
    plain: tuple[np.ndarray, TspModel], execution: Execution, precision: str, bound: float
) -> None:
    torch.manual_seed(0)
    trainer = Trainer(
        TspModel("tiny", Heads(3, True)),
        RECIPE,
        execution,
        Devices(Placement(), "cuda"),
        Preprocessing(),
        precision,
    )
    optimizer = ScheduledOptimizer(build_optimizer(trainer.model, RECIPE), Schedule.of(RECIPE, 8))
    trainer.set_training()
    for batch, expected in zip(batches(), plain[0], strict=True):
        counts = Counts(int((batch.action >= 0).sum()), BATCH)
        figures = trainer.step(batch, counts, optimizer).figures.means()
        assert abs(figures["action_loss"] - expected[0]) < bound
        assert abs(figures["region_loss"] - expected[1]) < bound
