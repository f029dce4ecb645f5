"""What processes that do not hold the encoder have to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tspcli.config import FrameSpec
from tspcli.encoders import Encoder, load_encoder
from tspcli.extraction.settings import ExtractConfig
from tspcli.timeline import Sampling


@dataclass(frozen=True)
class EncoderFacts:
    """What others have to know of an encoder; travels between processes, as the encoder does not.

    Attributes:
        provenance: What a store keeps of it.
        sampling: The clips that suit its weights.
        frame_spec: The frames that it takes.
        feature_dim: Width of a row.
        device_type: ``cpu`` or ``cuda``.
        runtime: What computes.
    """

    provenance: Mapping[str, Any]
    sampling: Sampling
    frame_spec: FrameSpec
    feature_dim: int
    device_type: str
    runtime: str

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderFacts:
        """The facts of an encoder that is loaded."""
        return cls(
            encoder.provenance,
            encoder.sampling,
            encoder.frame_spec,
            encoder.feature_dim,
            encoder.device.type,
            encoder.runtime,
        )


def load_configured_encoder(config: ExtractConfig, device: str | None = None) -> Encoder:
    """The encoder that the user chose.

    Args:
        config: The user's choices.
        device: Where it computes, instead of the configured device.
    """
    return load_encoder(
        config.weights,
        backbone=config.backbone,
        device=device or config.device,
        precision=config.precision,
        seed=config.seed,
        runtime=config.runtime,
    )
