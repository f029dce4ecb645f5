"""The TSP model: a backbone under the heads with which it is pretrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from tspcli.core.regions import REGION_CLASSES
from tspcli.encoders.backbones import backbone_spec, build_backbone
from tspcli.errors import UsageError


@dataclass(frozen=True)
class Heads:
    """Which classification layers the model has on top of its features.

    Attributes:
        n_actions: Classes of the action head; None without one.
        region: Whether there is a temporal-region head (inside or outside of an action).
        gvf_dim: Width of the global video feature that the region head takes besides the clip's
            own feature; 0 without one. In TSP it is the width of the backbone's features.
    """

    n_actions: int | None = None
    region: bool = False
    gvf_dim: int = 0

    def __post_init__(self) -> None:
        if self.n_actions is not None and self.n_actions < 1:
            raise UsageError(
                f"An action head needs at least one class, not {self.n_actions}.",
                value=self.n_actions,
            )
        if self.gvf_dim < 0 or (self.gvf_dim and not self.region):
            raise UsageError(
                f"gvf_dim is {self.gvf_dim}, but only a region head takes a global video feature.",
                value=self.gvf_dim,
            )

    def layers(self, feature_dim: int) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each layer under its name in the state dict."""
        action = (feature_dim, self.n_actions or 0)
        region = (feature_dim + self.gvf_dim, len(REGION_CLASSES))
        if self.n_actions is not None and self.region:
            return {"fc1": action, "fc2": region}
        if self.n_actions is not None:
            return {"fc": action}
        return {"fc": region} if self.region else {}

    def to_dict(self) -> dict[str, Any]:
        """The heads as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Heads:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)


class Logits(NamedTuple):
    """The heads' outputs; None for a head that the model does not have.

    Attributes:
        action: (B, n_actions).
        region: (B, 2), in the order of :data:`REGION_CLASSES`.
    """

    action: Tensor | None
    region: Tensor | None


class TspModel(nn.Module):
    """A backbone (``features``) and its heads, named as in the official TSP checkpoints.

    One head is called ``fc``; two are ``fc1`` (action) and ``fc2`` (region).

    Args:
        backbone: The name of a backbone, or a module that returns (B, feature_dim).
        heads: The layers on top; none by default.
        feature_dim: Width of the features; needed only with a module.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        heads: Heads | None = None,
        *,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            self.features = build_backbone(backbone)
            feature_dim = backbone_spec(backbone).feature_dim
        else:
            if feature_dim is None:
                raise UsageError("A backbone given as a module needs its feature_dim.")
            self.features = backbone
        self.heads = heads if heads is not None else Heads()
        self.feature_dim = feature_dim
        for name, (inputs, outputs) in self.heads.layers(feature_dim).items():
            layer = nn.Linear(inputs, outputs)
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.zeros_(layer.bias)
            self.add_module(name, layer)

    def forward(self, clips: Tensor, gvf: Tensor | None = None) -> Logits:
        """Logits of clips.

        Args:
            clips: (B, 3, T, H, W), normalised.
            gvf: (B, gvf_dim) global video features, if the region head takes them.
        """
        return self.classify(self.features(clips), gvf)

    def classify(self, features: Tensor, gvf: Tensor | None = None) -> Logits:
        """Logits of features (B, feature_dim).

        Raises:
            UsageError: If the region head takes a global video feature and ``gvf`` is None or has
                another width.
        """
        return Logits(self.action_logits(features), self._region_logits(features, gvf))

    def action_logits(self, features: Tensor) -> Tensor | None:
        """(B, n_actions), or None without an action head."""
        if self.heads.n_actions is None:
            return None
        return self._head("fc1" if self.heads.region else "fc")(features)

    def _region_logits(self, features: Tensor, gvf: Tensor | None) -> Tensor | None:
        if not self.heads.region:
            return None
        if self.heads.gvf_dim:
            width = None if gvf is None else gvf.shape[-1]
            if gvf is None or width != self.heads.gvf_dim:
                raise UsageError(
                    f"The region head takes global video features of {self.heads.gvf_dim} values, "
                    f"not {width}.",
                    remedy="Give features made by the encoder that the recipe names.",
                    value=width,
                )
            features = torch.cat([features, gvf.to(features.dtype)], dim=1)
        return self._head("fc" if self.heads.n_actions is None else "fc2")(features)

    def _head(self, name: str) -> Callable[[Tensor], Tensor]:
        return cast(nn.Linear, self.get_submodule(name))
