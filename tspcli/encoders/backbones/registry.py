"""Names of backbones and what belongs to each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import UsageError
from tspcli.sampling import Sampling


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and the input that it expects.

    Attributes:
        name: Its name in the registry.
        build: Makes the module with fresh random weights. Its forward takes (B, 3, T, H, W) and
            returns (B, feature_dim) pooled features. Heavy imports belong inside.
        feature_dim: Width D of the features.
        summary: One line for people.
        preprocessing: Of frames.
        sampling: Default frame rate, clip length and stride.
        plain_head: Where the classification layer lies in checkpoints of the plain layout: the
            prefix of its ``weight`` and ``bias``.
        stem: Prefixes of the parameters that TSP's recipe does not train.
        min_clip_length: The fewest frames that it can take.
        fixed_clip_length: Whether it takes clips of the default length alone.
    """

    name: str
    build: Callable[[], nn.Module]
    feature_dim: int
    summary: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sampling: Sampling = field(default_factory=Sampling)
    plain_head: str = "fc"
    stem: tuple[str, ...] = ("stem.",)
    min_clip_length: int = 1
    fixed_clip_length: bool = False

    def check_clip_length(self, frames: int) -> None:
        """Raise a :class:`UsageError` if clips of ``frames`` frames do not fit."""
        if self.fixed_clip_length and frames != self.sampling.clip_length:
            raise UsageError(
                f"{self.name} takes clips of {self.sampling.clip_length} frames, not {frames}.",
                remedy=f"Use a clip length of {self.sampling.clip_length}.",
            )
        if frames < self.min_clip_length:
            raise UsageError(
                f"{self.name} takes clips of at least {self.min_clip_length} frames, not {frames}.",
                remedy=f"Use a clip length of {self.sampling.clip_length}.",
            )


BACKBONES: dict[str, BackboneSpec] = {}
"""Every registered backbone by name."""


def register_backbone(spec: BackboneSpec) -> BackboneSpec:
    """Add a backbone to :data:`BACKBONES`.

    Raises:
        ValueError: If the name is taken.
    """
    if spec.name in BACKBONES:
        raise ValueError(f"a backbone named {spec.name!r} is registered already")
    BACKBONES[spec.name] = spec
    return spec


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up.

    Raises:
        UsageError: If there is none of that name.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"There is no backbone {name!r}.", remedy=f"{hint}Known: {', '.join(BACKBONES)}."
        )
    return BACKBONES[name]


def build_backbone(name: str) -> nn.Module:
    """Make a backbone with random weights: (B, 3, T, H, W) to (B, D), no classification layer.

    Raises:
        UsageError: If there is none of that name.
    """
    return backbone_spec(name).build()
