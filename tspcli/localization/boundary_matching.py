"""The boundary-matching network and its losses (Lin et al., BMN, ICCV 2019), after the paper.

The boundary-matching layer is fused with the convolution that reads it. The layer samples N points
of every proposal from the feature sequence, and the network then joins them with a convolution over
all N. Both are linear. In this order, at T = D = 100, the layer's map alone has 128 x 32 x 100 x
100 values per video and the convolution takes 42 GFLOP. The other way round, point n's share of the
convolution is applied to the T cells first, 0.4 GFLOP, and each proposal then sums a few
interpolated values for each of its points: one sparse product with a matrix of (D T) x (N T) of
which one entry in 67 is not zero. The result is the same up to rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tspcli.errors import LocalizationError
from tspcli.localization.localize_config import BmnConfig, LossConfig

# --- the boundary-matching layer ------------------------------------------------------------------


def sampling_matrix(config: BmnConfig) -> Tensor:
    """Weights with which the cells enter every point of every proposal.

    The points of proposal (d, i), the cells [i, i + d + 1), lie evenly from ``boundary_ratio`` of
    its length before its start to as far behind its end; each averages ``samples_per_bin`` places.
    A place takes its value from the two nearest cell centres, linearly; what lies beyond the grid
    is zero, as in the paper.

    Returns:
        Sparse (D * T, N * T), coalesced float32: row d * T + i, column n * T + cell. Rows of
        proposals that leave the grid are empty.
    """
    n_cells, n_points, per_bin = config.temporal_scale, config.n_samples, config.samples_per_bin
    duration, start = np.meshgrid(np.arange(config.durations), np.arange(n_cells), indexing="ij")
    on_grid = start + duration + 1 <= n_cells
    duration, start = duration[on_grid], start[on_grid]
    length = duration + 1.0
    reach = config.boundary_ratio * length
    share = np.linspace(0.0, 1.0, n_points * per_bin)
    places = (start - reach)[:, None] + (length + 2 * reach)[:, None] * share
    # Cell c's centre is at c + 1/2.
    position = places - 0.5
    left = np.floor(position).astype(np.int64)
    weight_right = position - left
    row = np.broadcast_to((duration * n_cells + start)[:, None], position.shape)
    point = np.broadcast_to(np.repeat(np.arange(n_points), per_bin), position.shape)
    rows, columns, weights = [], [], []
    for cell, weight in ((left, 1 - weight_right), (left + 1, weight_right)):
        used = (cell >= 0) & (cell < n_cells) & (weight > 0)
        rows.append(row[used])
        columns.append(point[used] * n_cells + cell[used])
        weights.append(weight[used] / per_bin)
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([np.concatenate(rows), np.concatenate(columns)])),
        torch.from_numpy(np.concatenate(weights).astype(np.float32)),
        (config.durations * n_cells, n_points * n_cells),
        check_invariants=True,
    ).coalesce()


class BoundaryMatching(nn.Module):
    """Features of all proposals: N points of each, joined by a convolution over the points.

    Args:
        in_channels: C of the sequence.
        out_channels: O of the map.
        config: T, D, N and where the points lie.
    """

    def __init__(self, in_channels: int, out_channels: int, config: BmnConfig) -> None:
        super().__init__()
        self.n_cells = config.temporal_scale
        self.durations = config.durations
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, config.n_samples))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(in_channels * config.n_samples)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        matrix = sampling_matrix(config)
        for name, part in (("forward", matrix), ("backward", matrix.t().coalesce())):
            first, column, value = _compressed_rows(part)
            self.register_buffer(f"_{name}_first", first, persistent=False)
            self.register_buffer(f"_{name}_column", column, persistent=False)
            self.register_buffer(f"_{name}_value", value, persistent=False)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, C, T) to (B, O, D, T); proposals that leave the grid get the bias alone."""
        n_out, n_in, n_points = self.weight.shape
        batch = sequence.shape[0]
        kernel = self.weight.permute(2, 0, 1).reshape(n_points * n_out, n_in, 1)
        shares = functional.conv1d(sequence, kernel)
        shares = shares.view(batch, n_points, n_out, self.n_cells).permute(1, 3, 0, 2)
        table = shares.reshape(n_points * self.n_cells, batch * n_out)
        buffers = [
            self.get_buffer(f"_{name}_{part}")
            for name in ("forward", "backward")
            for part in ("first", "column", "value")
        ]
        sums: Tensor = _SparseProduct.apply(table, *buffers)
        sums = sums.view(self.durations, self.n_cells, batch, n_out).permute(2, 3, 0, 1)
        return sums + self.bias[:, None, None]


class _SparseProduct(torch.autograd.Function):
    """A constant sparse matrix times a dense one.

    Summing table rows is what ``embedding_bag`` does; with the transposed matrix at hand its
    gradient is another such sum. On a CPU that is three times as fast as the CSR product, and
    unlike a scattered gradient it always adds in one order.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, *buffers: Tensor) -> Tensor:
        ctx.save_for_backward(*buffers[3:])
        return _sum_rows(table, *buffers[:3])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (_sum_rows(grads[0].contiguous(), *ctx.saved_tensors), *([None] * 6))


def _sum_rows(table: Tensor, first: Tensor, column: Tensor, value: Tensor) -> Tensor:
    return functional.embedding_bag(
        column, table, first, mode="sum", per_sample_weights=value.to(table.dtype)
    )


def _compressed_rows(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First entry of each row, columns, values of a coalesced sparse matrix."""
    row, column = matrix.indices()
    counts = torch.bincount(row, minlength=matrix.shape[0])
    return counts.cumsum(0) - counts, column.contiguous(), matrix.values()


# --- the network ----------------------------------------------------------------------------------


class BmnOutput(NamedTuple):
    """Logits of the network; their sigmoids are what the paper calls probabilities and confidence.

    Attributes:
        start: (B, T), of line i.
        end: (B, T), of line i + 1.
        classification: (B, D, T), of proposal (d, i) being right.
        regression: (B, D, T), of its IoU.
    """

    start: Tensor
    end: Tensor
    classification: Tensor
    regression: Tensor


class Bmn(nn.Module):
    """Boundary probabilities and proposal confidences from a sequence of features.

    Args:
        feature_dim: C of the features.
        config: Scales and widths.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, feature_dim: int, config: BmnConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("deviation", torch.ones(feature_dim))
        wide, hidden, joined = config.base_channels, config.hidden_channels, config.map_channels
        self.base = nn.Sequential(
            nn.Conv1d(feature_dim, wide, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(wide, hidden, 3, padding=1),
            nn.ReLU(),
        )
        self.boundaries = nn.Sequential(
            nn.Conv1d(hidden, wide, 3, padding=1), nn.ReLU(), nn.Conv1d(wide, 2, 1)
        )
        self.matching = BoundaryMatching(hidden, config.proposal_channels, config)
        self.proposals = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(config.proposal_channels, joined, 1),
            nn.ReLU(),
            nn.Conv2d(joined, joined, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(joined, joined, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(joined, 2, 1),
        )

    def standardize(self, mean: Tensor, deviation: Tensor) -> None:
        """Scale features by these from now on; both (C,). They are saved with the weights."""
        self.mean.copy_(mean)
        # A feature that never changes carries nothing; it must not become a division by zero.
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor) -> BmnOutput:
        """Logits for features (B, C, T).

        Raises:
            LocalizationError: If C or T are not those that the network was made for.
        """
        expected = (len(self.mean), self.config.temporal_scale)
        if features.ndim != 3 or tuple(features.shape[1:]) != expected:
            raise LocalizationError(
                f"Features of shape {tuple(features.shape)} do not fit the network, which expects "
                f"(videos, {expected[0]}, {expected[1]}).",
                remedy="Use features of the encoder that the network was trained with.",
            )
        scaled = (features - self.mean[:, None]) / self.deviation[:, None]
        sequence = self.base(scaled)
        boundaries = self.boundaries(sequence)
        proposals = self.proposals(self.matching(sequence))
        return BmnOutput(boundaries[:, 0], boundaries[:, 1], proposals[:, 0], proposals[:, 1])


# --- its losses -----------------------------------------------------------------------------------


class BmnTargets(NamedTuple):
    """What the network should answer for a batch.

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
    the authors take all of it and it weighs less; where none is high, theirs is 0/0.
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
