"""The losses of TSP by name, and the meter that adds up what they come to.

Action is learned from the foreground, temporal region from every clip. To add a loss, give it a
line in :data:`LOSSES` and the recipe a weight called ``NAME_alpha``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tspcli.encoders.tsp_model import Logits
from tspcli.pretraining.training_recipe import Recipe
from tspcli.pretraining.training_segments import NO_LABEL


class Counts(NamedTuple):
    """Clips of one step, over all devices and all pieces of the batch.

    Attributes:
        foreground: Clips with an action label.
        clips: All clips.
    """

    foreground: int
    clips: int


class Targets(NamedTuple):
    """What the heads should answer; :data:`NO_LABEL` for clips that a loss ignores.

    Attributes:
        action: (B,) class ids.
        region: (B,) region ids.
    """

    action: Tensor
    region: Tensor

    @classmethod
    def of(cls, action: Tensor, region: Tensor, weight: Tensor | None = None) -> Targets:
        """Targets of a batch.

        Args:
            action: (B,) class ids, -1 for background.
            region: (B,) region ids.
            weight: (B,), 0 for clips that do not count; None counts all.
        """
        if weight is None:
            return cls(action, region)
        counts = weight > 0
        return cls(torch.where(counts, action, NO_LABEL), torch.where(counts, region, NO_LABEL))


class Loss(NamedTuple):
    """One loss.

    Attributes:
        head: The head that it needs.
        over: The field of :class:`Counts` over which it is a mean.
        summed: Its sum over the clips of a batch, from the head's logits (B, classes) and targets.
    """

    head: str
    over: str
    summed: Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled clips; 0 if there are none."""
    return F.cross_entropy(logits.float(), target, ignore_index=NO_LABEL, reduction="sum")


LOSSES = {
    "action": Loss("action", "foreground", cross_entropy),
    "region": Loss("region", "clips", cross_entropy),
}

if _unmatched := LOSSES.keys() ^ Recipe().alphas.keys():
    raise TypeError(f"Each loss has a weight NAME_alpha in the recipe; see {sorted(_unmatched)}.")


def tsp_losses(logits: Logits, targets: Targets) -> dict[str, Tensor]:
    """The losses of some clips by name, summed over these clips.

    Args:
        logits: Of B clips; a loss whose head is missing is left out.
        targets: Of the same clips.
    """
    return {
        name: loss.summed(part, getattr(targets, loss.head))
        for name, loss in LOSSES.items()
        if (part := getattr(logits, loss.head)) is not None
    }


def total_loss(losses: Mapping[str, Tensor], counts: Counts, alphas: Mapping[str, float]) -> Tensor:
    """The weighted sum of losses, which is what gets differentiated.

    Sums over clips are divided by the counts of the step, so that the parts of several devices and
    pieces add up to the means over the step. A step without foreground has an action loss of 0,
    where a mean would be NaN.

    Args:
        losses: From :func:`tsp_losses`.
        counts: Of the complete step.
        alphas: Weight of each loss by name.
    """
    parts = [
        alphas[name] * (loss / max(getattr(counts, LOSSES[name].over), 1))
        for name, loss in losses.items()
    ]
    return sum(parts[1:], parts[0])


# --- figures --------------------------------------------------------------------------------------


class Meter:
    """Means by name, each kept as a sum and the number of things that it is a mean over.

    The values stay on the device, where they are added to and summed over all devices without
    waiting; only reading them waits.

    Args:
        names: Of the figures.
        device: Where the values lie.
    """

    def __init__(self, names: Iterable[str], device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.values = torch.zeros((len(self.names), 2), dtype=torch.float64, device=device)

    def add(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add to one figure's sum and count."""
        row = self.values[self.names.index(name)]
        row[0] += total
        row[1] += count

    def update(self, other: Meter) -> None:
        """Add another meter's figures to those of the same name."""
        for name, row in zip(other.names, other.values, strict=True):
            if name in self.names:
                self.add(name, row[0], row[1])

    def total(self, name: str) -> Tensor:
        """One figure's sum, a scalar on the device."""
        return self.values[self.names.index(name), 0]

    def means(self) -> dict[str, float]:
        """Every figure's mean; 0 of nothing. Waits for the device."""
        return {name: total / max(count, 1.0) for name, (total, count) in self.to_dict().items()}

    def to_dict(self) -> dict[str, list[float]]:
        """[sum, count] of every figure as plain values. Waits for the device."""
        rows: list[list[float]] = self.values.tolist()
        return dict(zip(self.names, rows, strict=True))

    def load(self, stored: Mapping[str, Sequence[float]]) -> None:
        """Replace the values by those of :meth:`to_dict`; figures that are not stored become 0."""
        rows = [list(stored.get(name, (0.0, 0.0))) for name in self.names]
        self.values.copy_(torch.tensor(rows, dtype=torch.float64))


def figure_names(heads: Sequence[str]) -> list[str]:
    """The figures of a model with some heads, such as ``action_loss`` and ``action_accuracy``."""
    losses = [f"{name}_loss" for name, loss in LOSSES.items() if loss.head in heads]
    return [*losses, *(f"{head}_accuracy" for head in heads)]


@torch.no_grad()
def add_figures(
    meter: Meter, losses: Mapping[str, Tensor], logits: Logits, targets: Targets
) -> None:
    """Add the losses and the hits of some clips to a meter with :func:`figure_names`."""
    foreground, clips = targets.action != NO_LABEL, targets.region != NO_LABEL
    counts = {"foreground": foreground.sum(), "clips": clips.sum()}
    for name, loss in losses.items():
        meter.add(f"{name}_loss", loss.double(), counts[LOSSES[name].over])
    for head, part in logits._asdict().items():
        if part is not None:
            target = getattr(targets, head)
            labelled = target != NO_LABEL
            hits = (part.argmax(dim=1) == target) & labelled
            meter.add(f"{head}_accuracy", hits.sum(), labelled.sum())
