"""What leaves the range of numbers stops the run, and is never stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.errors import TrainingError
from tspcli.pretraining import pretrain
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.epoch_plan import BatchPlan
from tspcli.pretraining.loader import BatchFeed
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_run import build_model
from tspcli.pretraining.tsp_losses import Counts


def test_non_finite_loss_stops_with_the_batch_named(
    with_gvf: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """A head that overflows: the message names clips, and no checkpoint holds the damage."""
    arguments = with_gvf(out=tmp_path / "run", execution=replace(QUIET, checkpoint_every_steps=1))
    arguments["recipe"] = replace(
        arguments["recipe"], backbone_lr=1e18, head_lr=1e18, warmup_epochs=0
    )
    with pytest.raises(TrainingError, match=r"not finite.*train_000\d\.mp4 at \d+\.\d\d s, train_"):
        pretrain(**arguments)
    last = torch.load(tmp_path / "run" / "last.pth", weights_only=False)
    assert last["run"]["state"]["epoch"] == 0


def finite(content: dict[str, Any]) -> bool:
    return all(v.isfinite().all() for v in content["model"].values() if v.is_floating_point())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # The only step of the epoch: the parameters are huge, and their validation overflows.
        ({"backbone_lr": 1e18}, "validation loss is not finite"),
        # The step itself overflows.
        ({"head_lr": 1e30, "weight_decay": 1e30}, "left the range of numbers: fc"),
    ],
)
def test_an_epoch_that_leaves_the_numbers_is_never_the_best(
    small_set: SmallSet, tmp_path: Path, changed: dict[str, float], message: str
) -> None:
    recipe = replace(FAST, batch_size=500, epochs=1, warmup_epochs=0, **changed)
    arguments = small_set.arguments(out=tmp_path / "run", recipe=recipe)
    with pytest.raises(TrainingError, match=message):
        pretrain(**arguments)
    assert not (tmp_path / "run" / "best.pth").exists()
    assert (tmp_path / "run" / "results.jsonl").read_text() == ""
    last = tmp_path / "run" / "last.pth"
    assert not last.exists() or finite(torch.load(last, weights_only=False))


def test_weighted_loss_has_to_be_finite(small_set: SmallSet, tmp_path: Path) -> None:
    recipe = replace(FAST, action_alpha=1e30, region_alpha=1e30)
    inputs = RunInputs((small_set.videos,), small_set.train, small_set.valid, small_set.labels)
    data = load_data(inputs, recipe)
    devices = Devices(Placement(), "cpu")
    model = build_model(recipe, data, devices)
    trainer = Trainer(model, recipe, QUIET, devices, data.preprocessing)
    with torch.no_grad():
        trainer.model.fc1.bias.copy_(torch.tensor([1e12, 0, 0]))
    batches = BatchPlan(data.plans["train"], 100)
    order = data.plans["train"].order(0)
    batch = next(iter(BatchFeed(data.loader("train", QUIET))(batches.epoch(0))))
    optimizer = ScheduledOptimizer(build_optimizer(trainer.model, recipe), Schedule.of(recipe, 1))
    with pytest.raises(TrainingError, match=r"1e\+30 × "):
        trainer.step(batch, Counts(*batches.counts(order, 0)), optimizer)
