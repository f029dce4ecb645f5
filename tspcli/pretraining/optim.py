"""The optimiser and the learning rates of the recipe."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.tsp_model import TspModel
from tspcli.pretraining.training_recipe import Recipe

GROUPS = ("stem", "backbone", "fc")
"""Names of the optimiser's groups in the official checkpoints."""


def parameter_groups(model: TspModel, recipe: Recipe, world_size: int = 1) -> list[dict[str, Any]]:
    """The three groups of parameters with their learning rates.

    Args:
        model: Whose parameters.
        recipe: Whose learning rates.
        world_size: By which they are multiplied, if the recipe says so.
    """
    prefixes = tuple(f"features.{prefix}" for prefix in backbone_spec(recipe.backbone).stem)
    members: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        if not name.startswith("features."):
            members["fc"].append(parameter)
        else:
            members["stem" if name.startswith(prefixes) else "backbone"].append(parameter)
    scale = world_size if recipe.scale_lr_by_world_size else 1
    rates = dict(zip(GROUPS, (recipe.stem_lr, recipe.backbone_lr, recipe.head_lr), strict=True))
    return [{"params": members[name], "lr": rates[name] * scale, "name": name} for name in GROUPS]


def build_optimizer(model: TspModel, recipe: Recipe, world_size: int = 1) -> torch.optim.SGD:
    """SGD over :func:`parameter_groups`, as one kernel on accelerators."""
    return torch.optim.SGD(
        parameter_groups(model, recipe, world_size),
        lr=0.0,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=next(model.parameters()).device.type in ("cuda", "xpu"),
    )


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, step by step.

    Linear from ``warmup_factor`` to 1 over the first ``warmup_steps``, and times ``gamma`` at each
    milestone.

    Attributes:
        warmup_steps: Steps of the warm-up.
        warmup_factor: Where it starts.
        milestones: Steps at which the rate drops.
        gamma: By which factor.
    """

    warmup_steps: int
    warmup_factor: float
    milestones: tuple[int, ...]
    gamma: float

    @classmethod
    def of(cls, recipe: Recipe, steps_per_epoch: int) -> Schedule:
        """The schedule of a recipe."""
        return cls(
            recipe.warmup_epochs * steps_per_epoch,
            recipe.warmup_factor,
            tuple(milestone * steps_per_epoch for milestone in recipe.milestones),
            recipe.gamma,
        )

    def factor(self, step: int) -> float:
        """By what the base learning rates are multiplied at a step, counted from 0."""
        rise = 1.0
        if step < self.warmup_steps:
            done = step / self.warmup_steps
            rise = self.warmup_factor * (1 - done) + done
        return rise * self.gamma ** bisect_right(self.milestones, step)

    def state_dict(self, step: int, base_lrs: Sequence[float]) -> dict[str, Any]:
        """The state in the form of the official checkpoints' ``lr_scheduler``."""
        return {
            "milestones": list(self.milestones),
            "gamma": self.gamma,
            "warmup_factor": self.warmup_factor,
            "warmup_iters": self.warmup_steps,
            "warmup_method": "linear",
            "base_lrs": list(base_lrs),
            "last_epoch": step,
            "_step_count": step + 1,
            "_last_lr": [lr * self.factor(step) for lr in base_lrs],
        }


class ScheduledOptimizer:
    """SGD whose learning rates follow a schedule.

    Args:
        optimizer: With the base learning rates in its groups.
        schedule: The factor over the steps.
    """

    def __init__(self, optimizer: torch.optim.SGD, schedule: Schedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self._fused = bool(optimizer.param_groups[0]["fused"])
        self.steps = 0
        self._set_rates()

    @property
    def learning_rates(self) -> dict[str, float]:
        """The current learning rates by group."""
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def rates_at(self, step: int) -> dict[str, float]:
        """The learning rates of a step, counted from 0, by group."""
        factor = self.schedule.factor(step)
        names = (group["name"] for group in self.optimizer.param_groups)
        return {name: base * factor for name, base in zip(names, self.base_lrs, strict=True)}

    def step(self, skip: torch.Tensor | None = None) -> None:
        """Update the parameters with the current rates, then move on to the next rates.

        Args:
            skip: A flag on the device; if true, the parameters stay as they are. A fused optimiser
                reads it there, so that the host need not wait for it.
        """
        if self._fused:
            # What torch's gradient scaler sets, and its fused kernels look at.
            cast(Any, self.optimizer).found_inf = None if skip is None else skip.float()
            self.optimizer.step()
        elif skip is None or not bool(skip):
            self.optimizer.step()
        self.steps += 1
        self._set_rates()

    def _set_rates(self) -> None:
        factor = self.schedule.factor(self.steps)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    def state_dicts(self) -> dict[str, Any]:
        """``optimizer`` and ``lr_scheduler`` as the official checkpoints have them."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.schedule.state_dict(self.steps, self.base_lrs),
        }

    def load_state_dicts(self, states: Mapping[str, Any]) -> None:
        """Resume from :meth:`state_dicts`, which may come from another kind of device."""
        self.optimizer.load_state_dict(states["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = self._fused
        self.steps = int(states["lr_scheduler"]["last_epoch"])
        self._set_rates()


def batch_norms(model: nn.Module) -> Iterator[_BatchNorm]:
    """The batch norm layers of a model."""
    return (module for module in model.modules() if isinstance(module, _BatchNorm))


def freeze_batch_norms(model: nn.Module) -> None:
    """Put batch norms into evaluation, for good: neither their statistics nor scales move."""
    for layer in batch_norms(model):
        layer.eval()
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
