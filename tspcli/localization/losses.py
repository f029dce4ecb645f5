"""The losses of the boundary-matching network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tspcli.localization.bmn import BmnOutput
from tspcli.localization.settings import LossConfig


class BmnTargets(NamedTuple):
    """Labels of a batch.

    Attributes:
        start: (B, T), 0..1.
        end: (B, T), 0..1.
        iou: (B, D, T), 0..1.
        valid: (D, T) bool, which proposals end on the grid.
    """

    start: Tensor
    end: Tensor
    iou: Tensor
    valid: Tensor


class BmnLoss(NamedTuple):
    """The weighted sum and its parts, scalars."""

    total: Tensor
    boundary: Tensor
    classification: Tensor
    regression: Tensor


def bmn_loss(output: BmnOutput, targets: BmnTargets, config: LossConfig) -> BmnLoss:
    """The paper's equations 5 to 7: boundaries, right or wrong, IoU."""
    boundary = balanced_logistic(
        output.start, targets.start > config.boundary_positive
    ) + balanced_logistic(output.end, targets.end > config.boundary_positive)
    iou = targets.iou[:, targets.valid]
    classification = balanced_logistic(
        output.classification[:, targets.valid], iou > config.proposal_positive
    )
    regression = balanced_square(output.regression[:, targets.valid], iou, config)
    total = boundary + classification + config.regression_weight * regression
    return BmnLoss(total, boundary, classification, regression)


def balanced_logistic(logits: Tensor, positive: Tensor) -> Tensor:
    """Binary logistic loss in which all positives together weigh as much as all negatives.

    With l values of which p are positive the weights are l/p and l/(l - p), and the mean is over l,
    so that a guess of 1/2 costs 2 log 2. Where all are negative, or all positive, they weigh 1, as
    the same formula has it.
    """
    count = positive.numel()
    n_positive = positive.sum()
    n_negative = count - n_positive
    balanced = (n_positive > 0) & (n_negative > 0)
    weight_positive = torch.where(balanced, count / n_positive.clamp(min=1), 1.0)
    weight_negative = torch.where(balanced, count / n_negative.clamp(min=1), 1.0)
    weights = torch.where(positive, weight_positive, weight_negative)
    losses = functional.binary_cross_entropy_with_logits(
        logits, positive.to(logits.dtype), reduction="none"
    )
    return (losses * weights).mean()


def balanced_square(logits: Tensor, iou: Tensor, config: LossConfig) -> Tensor:
    """Squared error of the IoU: the mean of the means of three bands, those of IoU 0 among the low.

    The authors' code takes all proposals of high IoU and draws about as many of middle and of low
    IoU (0 included), anew at each step. Here all enter, which is what that drawing averages to
    where each of these bands has at least as many proposals as the high one. Where one has fewer,
    the authors take it whole and it weighs less; where none is high, theirs is 0/0.
    """
    errors = (torch.sigmoid(logits) - iou) ** 2
    high = iou > config.regression_high
    low = iou <= config.regression_low
    total = errors.new_zeros(())
    bands = errors.new_zeros(())
    for band in (high, ~high & ~low, low):
        size = band.sum()
        total = total + (errors * band).sum() / size.clamp(min=1)
        bands = bands + (size > 0)
    return total / bands
