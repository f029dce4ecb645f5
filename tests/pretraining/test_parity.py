"""The mathematics of a step are those of the official training, written here literally.

The reference shares no code with the product: torchvision's own network, pixels scaled and
normalised clip by clip, ``CrossEntropyLoss(ignore_index=-1)`` over the batch, SGD with three groups
of parameters, and the learning rate computed for every iteration (TSP, Alwassel et al., ICCVW 2021,
and its published training code).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from tspcli.encoders import Heads, Preprocessing, TspModel, build_backbone
from tspcli.encoders.backbones import backbone_spec
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.loader import ClipBatch
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_recipe import Execution, Recipe, load_recipe
from tspcli.pretraining.tsp_losses import Counts

N_CLASSES, N_STEPS, BATCH = 7, 10, 4
MEAN, STD = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]


class ReferenceModel(nn.Module):
    """A backbone under one fc layer or two."""

    def __init__(self, backbone: str, heads: tuple[str, ...], gvf_dim: int) -> None:
        super().__init__()
        if backbone == "r2plus1d_18":
            self.features = torchvision.models.video.r2plus1d_18(weights=None)
            self.features.fc = nn.Sequential()
        else:  # whose network is tested elsewhere; the mathematics around it is what is literal
            self.features = build_backbone(backbone)
        width = backbone_spec(backbone).feature_dim
        if len(heads) == 1:
            self.fc = nn.Linear(width + gvf_dim, N_CLASSES if heads == ("action",) else 2)
        else:
            self.fc1 = nn.Linear(width, N_CLASSES)
            self.fc2 = nn.Linear(width + gvf_dim, 2)
        self.two, self.gvf_dim = len(heads) == 2, gvf_dim

    def forward(self, clips: Tensor, gvf: Tensor | None) -> list[Tensor]:
        features = self.features(clips)
        seen = torch.cat([features, gvf], dim=-1) if self.gvf_dim else features
        return [self.fc1(features), self.fc2(seen)] if self.two else [self.fc(seen)]


def reference_clip(frames: Tensor) -> Tensor:
    """(T, h, w, 3) uint8 to (3, T, h, w), scaled and normalised."""
    channels = frames.permute(3, 0, 1, 2).to(torch.float32) / 255
    mean = torch.tensor(MEAN).view(-1, 1, 1, 1)
    std = torch.tensor(STD).view(-1, 1, 1, 1)
    return (channels - mean) / std


def reference_rate(base: float, iteration: int, recipe: Recipe, per_epoch: int) -> float:
    warmup = recipe.warmup_epochs * per_epoch
    factor = 1.0
    if iteration < warmup:
        alpha = iteration / warmup
        factor = recipe.warmup_factor * (1 - alpha) + alpha
    drops = bisect_right([m * per_epoch for m in recipe.milestones], iteration)
    return base * factor * recipe.gamma**drops


def batches(with_gvf: bool, seed: int = 0) -> list[ClipBatch]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(N_STEPS):
        action = torch.from_numpy(rng.integers(0, N_CLASSES, BATCH))
        action[rng.random(BATCH) < 0.4] = -1
        action[0] = 2  # the reference's mean over no clip at all would be NaN
        made.append(
            ClipBatch(
                torch.from_numpy(rng.integers(0, 256, (BATCH, 4, 32, 32, 3), dtype=np.uint8)),
                action,
                (action < 0).long(),
                torch.from_numpy(rng.normal(size=(BATCH, 512)).astype(np.float32))
                if with_gvf
                else None,
                torch.ones(BATCH),
                [f"clip {i}" for i in range(BATCH)],
            )
        )
    return made


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Relative to the largest value of the tensor."""
    error = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)
    assert error < 1e-5, f"{what}: relative error {float(error):.2e}"


@pytest.mark.parametrize(
    ("backbone", "heads", "gvf_dim"),
    [
        ("tiny", ("action", "region"), 512),
        ("tiny", ("action", "region"), 0),
        ("tiny", ("action",), 0),
        ("tiny", ("region",), 512),
        pytest.param("r2plus1d_18", ("action", "region"), 512, marks=pytest.mark.slow),
        pytest.param("r2plus1d_18", ("action",), 0, marks=pytest.mark.slow),
    ],
    ids=["tsp", "tsp-no-gvf", "tac", "region-alone", "r2plus1d_18-tsp", "r2plus1d_18-tac"],
)
def test_ten_steps_equal_the_literal_reference(
    backbone: str, heads: tuple[str, ...], gvf_dim: int
) -> None:
    # Warm-up over the first 4 steps and a drop at step 8, with the official learning rates.
    recipe = replace(
        load_recipe("tsp-activitynet", {"backbone": backbone, "gvf_pool": "none"}),
        heads=heads,
        batch_size=BATCH,
        milestones=(4,),
        foreground_only=False,
        action_alpha=0.7,
        region_alpha=1.3,
        head_lr=2e-3,
    )
    per_epoch = 2
    torch.manual_seed(0)
    model = TspModel(
        backbone, Heads(N_CLASSES if "action" in heads else None, "region" in heads, gvf_dim)
    )
    reference = ReferenceModel(backbone, heads, gvf_dim)
    assert reference.load_state_dict(model.state_dict())

    trainer = Trainer(model, recipe, Execution(), Devices(Placement(), "cpu"), Preprocessing())
    optimizer = ScheduledOptimizer(
        build_optimizer(trainer.model, recipe), Schedule.of(recipe, per_epoch)
    )
    trainer.set_training()
    net = reference.features
    body = [
        p for layer in (net.layer1, net.layer2, net.layer3, net.layer4) for p in layer.parameters()
    ]
    top = [p for name, p in reference.named_parameters() if name.startswith("fc")]
    rates = [0.0, recipe.backbone_lr, recipe.head_lr]
    sgd = torch.optim.SGD(
        [
            {"params": list(net.stem.parameters()), "lr": 0.0},
            {"params": body, "lr": 0.0},
            {"params": top, "lr": 0.0},
        ],
        lr=0.0,
        momentum=0.9,
        weight_decay=0.005,
    )
    criterion = nn.CrossEntropyLoss(ignore_index=-1)
    alphas = {"action": 0.7, "region": 1.3}
    reference.train()
    for step, batch in enumerate(batches(gvf_dim > 0)):
        for group, base in zip(sgd.param_groups, rates, strict=True):
            group["lr"] = reference_rate(base, step, recipe, per_epoch)
        clips = torch.stack([reference_clip(frames) for frames in batch.pixels])
        logits = reference(clips, batch.gvf)
        targets = {"action": batch.action, "region": batch.region}
        losses = [criterion(out, targets[head]) for head, out in zip(heads, logits, strict=True)]
        total = sum(alphas[head] * loss for head, loss in zip(heads, losses, strict=True))
        sgd.zero_grad(set_to_none=True)
        total.backward()

        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        with torch.no_grad():
            trainer.model.load_state_dict(before)  # logits first, without moving statistics
            inputs, gvf, _ = trainer.inputs(batch)
            close(inputs, clips, "clips")
            ours = trainer.model(inputs, gvf)
            trainer.model.load_state_dict(before)
        for head, theirs in zip(heads, logits, strict=True):
            close(getattr(ours, head), theirs.detach(), f"{head} logits at step {step}")
        for group, rate in zip(sgd.param_groups, optimizer.optimizer.param_groups, strict=True):
            assert rate["lr"] == pytest.approx(group["lr"], rel=1e-12)
        counts = Counts(int((batch.action >= 0).sum()), len(batch))
        figures = trainer.step(batch, counts, optimizer).figures.means()
        for head, loss in zip(heads, losses, strict=True):
            assert figures[f"{head}_loss"] == pytest.approx(loss.item(), rel=1e-5)
        own = dict(trainer.model.named_parameters())
        for name, parameter in reference.named_parameters():
            close(own[name].grad, parameter.grad, f"gradient of {name} at step {step}")
        sgd.step()
    for name, value in reference.state_dict().items():
        close(trainer.model.state_dict()[name].double(), value.double(), f"{name} at the end")
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.stem.parameters(), model.features.stem.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["tsp-activitynet", "tac-thumos14"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_learning_rates_along_a_whole_schedule(name: str, world_size: int) -> None:
    recipe = load_recipe(name, {"backbone": "tiny"})
    per_epoch = 37
    model = TspModel("tiny", Heads(3, "region" in recipe.heads))
    optimizer = ScheduledOptimizer(
        build_optimizer(model, recipe, world_size), Schedule.of(recipe, per_epoch)
    )
    bases = {"stem": 0.0, "backbone": recipe.backbone_lr, "fc": recipe.head_lr}
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # the rates alone are looked at
    for iteration in range(recipe.epochs * per_epoch):
        for group, rate in optimizer.learning_rates.items():
            expected = reference_rate(bases[group] * world_size, iteration, recipe, per_epoch)
            assert rate == pytest.approx(expected, rel=1e-12, abs=0), (group, iteration)
        assert optimizer.rates_at(iteration) == optimizer.learning_rates
        optimizer.step()
    assert optimizer.learning_rates["backbone"] == pytest.approx(
        recipe.backbone_lr * world_size * 1e-4
    )


def test_batch_without_foreground_has_an_action_loss_of_zero() -> None:
    recipe = replace(load_recipe("tsp-activitynet", {"backbone": "tiny", "gvf_pool": "none"}))
    model = TspModel("tiny", Heads(N_CLASSES, True))
    trainer = Trainer(model, recipe, Execution(), Devices(Placement(), "cpu"), Preprocessing())
    optimizer = ScheduledOptimizer(build_optimizer(model, recipe), Schedule.of(recipe, 2))
    batch = batches(False)[0]
    batch.action[:] = -1
    batch.region[:] = 1
    figures = trainer.step(batch, Counts(0, BATCH), optimizer).figures.means()
    assert figures["action_loss"] == 0
    assert 0.3 < figures["region_loss"] < 1.5
    assert torch.equal(model.fc1.weight.grad, torch.zeros_like(model.fc1.weight))
    assert all(p.grad.isfinite().all() for p in model.parameters())
