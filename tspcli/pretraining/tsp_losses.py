"""The losses of TSP: action over the foreground, temporal region over everything."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tspcli.encoders.tsp_model import Logits
from tspcli.pretraining.training_segments import NO_LABEL


class LossParts(NamedTuple):
    """Losses of some clips, as their shares of the means over the whole step.

    Attributes:
        total: What is differentiated: the weighted sum.
        action: Cross-entropy of the action head; 0 without one, or without foreground.
        region: Cross-entropy of the region head; 0 without one.
    """

    total: Tensor
    action: Tensor
    region: Tensor


class Counts(NamedTuple):
    """Clips of a whole step, all devices and all pieces of the batch together.

    Attributes:
        foreground: Clips with an action label.
        clips: All clips.
    """

    foreground: int
    clips: int


def tsp_losses(
    logits: Logits,
    action: Tensor,
    region: Tensor,
    *,
    counts: Counts,
    action_alpha: float = 1.0,
    region_alpha: float = 1.0,
    weight: Tensor | None = None,
) -> LossParts:
    """The losses of some clips of a step.

    Sums over the clips are divided by the step's counts, so that the parts of several devices and
    pieces add up to the means over the step; with one device and one piece they are these means.
    A step without foreground has an action loss of 0, where a mean would be NaN.

    Args:
        logits: Of B clips.
        action: (B,) class ids, -1 for background, which the action loss ignores.
        region: (B,) region ids.
        counts: Of the whole step.
        action_alpha: Weight of the action loss.
        region_alpha: Weight of the region loss.
        weight: (B,), 0 for clips that shall not count; None for all 1.
    """
    present = next(part for part in logits if part is not None)
    zero = present.new_zeros((), dtype=torch.float32)
    action_loss, region_loss = zero, zero
    if weight is not None:
        action = torch.where(weight > 0, action, NO_LABEL)
        region = torch.where(weight > 0, region, NO_LABEL)
    if logits.action is not None:
        total = F.cross_entropy(
            logits.action.float(), action, ignore_index=NO_LABEL, reduction="sum"
        )
        action_loss = total / max(counts.foreground, 1)
    if logits.region is not None:
        total = F.cross_entropy(
            logits.region.float(), region, ignore_index=NO_LABEL, reduction="sum"
        )
        region_loss = total / max(counts.clips, 1)
    return LossParts(
        action_alpha * action_loss + region_alpha * region_loss,
        action_loss.detach(),
        region_loss.detach(),
    )


def head_hits(logits: Logits, action: Tensor, region: Tensor, weight: Tensor) -> Tensor:
    """Right answers and clips of both heads: (action right, clips, region right, clips)."""
    counted = weight > 0
    hits = torch.zeros(4, dtype=torch.float64, device=weight.device)
    for place, part, target in ((0, logits.action, action), (2, logits.region, region)):
        if part is not None:
            labelled = counted & (target != NO_LABEL)
            hits[place] = ((part.argmax(dim=1) == target) & labelled).sum()
            hits[place + 1] = labelled.sum()
    return hits
