"""Class labels for proposals: from a head trained on the features, or from the encoder's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tspcli.errors import LocalizationError
from tspcli.localization.feature_windows import mean_over
from tspcli.localization.localize_config import ClassConfig

FloatArray = npt.NDArray[np.float64]
Classify = Callable[[Tensor], Tensor]
"""Logits (N, K) of features (N, C), such as an encoder's action head gives them."""


class Classifier(Protocol):
    """Estimates how likely each class is in each segment of a video."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the K classes."""

    def probabilities(
        self,
        rows: npt.NDArray[np.float32],
        center_s: FloatArray,
        start_s: FloatArray,
        end_s: FloatArray,
    ) -> FloatArray:
        """(M, K) for M segments, each row summing to 1; rows (N, C) with their centres."""


@dataclass(frozen=True)
class ActionHeadClassifier:
    """The pretrained action head: its mean logits over the clips of a proposal.

    Attributes:
        labels: Names of the K outputs.
        classify: Logits of features.
    """

    labels: tuple[str, ...]
    classify: Classify

    def probabilities(
        self,
        rows: npt.NDArray[np.float32],
        center_s: FloatArray,
        start_s: FloatArray,
        end_s: FloatArray,
    ) -> FloatArray:
        """See :class:`Classifier`.

        Raises:
            LocalizationError: If the head has another number of outputs than there are labels.
        """
        logits = self.classify(torch.from_numpy(np.ascontiguousarray(rows))).cpu().float().numpy()
        if logits.shape[1] != len(self.labels):
            raise LocalizationError(
                f"The action head has {logits.shape[1]} classes and {len(self.labels)} names.",
                remedy="Give the label mapping that the encoder was trained with.",
            )
        means = mean_over(logits, center_s, start_s, end_s)
        return torch.from_numpy(means).softmax(dim=1).numpy()


class ClassHead(nn.Module):
    """A linear layer, or two, on the mean feature of a segment or of the video.

    Args:
        feature_dim: C.
        labels: Names of the K classes.
        config: Whether it looks at segments or at videos, and its width.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, feature_dim: int, labels: Sequence[str], config: ClassConfig) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.config = config
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("deviation", torch.ones(feature_dim))
        self.layers: nn.Module
        if config.hidden:
            self.layers = nn.Sequential(
                nn.Linear(feature_dim, config.hidden),
                nn.ReLU(),
                nn.Linear(config.hidden, len(labels)),
            )
        else:
            self.layers = nn.Linear(feature_dim, len(labels))

    def forward(self, features: Tensor) -> Tensor:
        """(M, C) mean features to (M, K) logits."""
        logits: Tensor = self.layers((features - self.mean) / self.deviation)
        return logits

    def segments(
        self, center_s: FloatArray, start_s: FloatArray, end_s: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The stretches whose mean it looks at: the segments, or each time all of the video."""
        if self.config.source == "segment":
            return start_s, end_s
        return np.full_like(start_s, center_s[0]), np.full_like(end_s, center_s[-1])

    def probabilities(
        self,
        rows: npt.NDArray[np.float32],
        center_s: FloatArray,
        start_s: FloatArray,
        end_s: FloatArray,
    ) -> FloatArray:
        """See :class:`Classifier`."""
        means = mean_over(rows, center_s, *self.segments(center_s, start_s, end_s))
        with torch.inference_mode():
            device = self.mean.device
            logits = self(torch.from_numpy(means.astype(np.float32)).to(device))
            return logits.double().softmax(dim=1).cpu().numpy()


@dataclass(frozen=True)
class ClassSamples:
    """What a class head learns from: (M, C) mean features and (M,) class indices."""

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]


def train_class_head(head: ClassHead, samples: ClassSamples, seed: int) -> dict[str, Any]:
    """Train a class head in place, on the device where it is.

    Args:
        head: Fresh.
        samples: Of the training videos.
        seed: Of the order.

    Returns:
        ``loss`` of the last epoch and ``accuracy`` on the samples themselves.

    Raises:
        LocalizationError: If there is no sample.
    """
    config, device = head.config, head.mean.device
    if not len(samples.targets):
        raise LocalizationError(
            "There is no annotated action to learn classes from.",
            remedy="Check the annotations, or train without classes.",
        )
    features = torch.from_numpy(samples.features).to(device)
    targets = torch.from_numpy(samples.targets).to(device)
    head.mean.copy_(features.mean(dim=0))
    spread = features.std(dim=0, unbiased=False)
    head.deviation.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    head.train()
    loss = torch.zeros(())
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(targets), generator=generator)
        losses = []
        for batch in order.split(config.batch_size):
            optimizer.zero_grad()
            loss = functional.cross_entropy(head(features[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach() * len(batch))
        loss = torch.stack(losses).sum() / len(targets)
    head.eval()
    with torch.inference_mode():
        accuracy = (head(features).argmax(dim=1) == targets).float().mean()
    return {"loss": float(loss), "accuracy": float(accuracy), "n_samples": len(targets)}
