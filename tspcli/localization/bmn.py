"""The boundary-matching network (Lin et al., BMN, ICCV 2019), written from the paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tspcli.errors import LocalizationError
from tspcli.localization.boundary_matching import BoundaryMatching
from tspcli.localization.settings import BmnConfig


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
        # A feature that never changes says nothing; it must not become a division by zero.
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, features: Tensor) -> BmnOutput:
        """Logits for features (B, C, T).

        Raises:
            LocalizationError: If C or T are not those that the network was made for.
        """
        expected = (len(self.mean), self.config.temporal_scale)
        if features.ndim != 3 or tuple(features.shape[1:]) != expected:
            raise LocalizationError(
                f"Features of shape {tuple(features.shape)} do not fit the network, which takes "
                f"(videos, {expected[0]}, {expected[1]}).",
                remedy="Use features of the encoder that the network was trained with.",
            )
        scaled = (features - self.mean[:, None]) / self.deviation[:, None]
        sequence = self.base(scaled)
        boundaries = self.boundaries(sequence)
        proposals = self.proposals(self.matching(sequence))
        return BmnOutput(boundaries[:, 0], boundaries[:, 1], proposals[:, 0], proposals[:, 1])
