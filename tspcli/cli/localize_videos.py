"""Videos and encoders for ``tsp localize``, whose library knows of neither."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tspcli.cli.console import say

if TYPE_CHECKING:
    from torch import Tensor

    from tspcli.encoders import Encoder
    from tspcli.localization.classes import Classifier
    from tspcli.localization.localizer import Localizer


def _weights_of(localizer: Localizer, weights: str | None) -> str:
    from tspcli.errors import UsageError

    name = weights or localizer.weights
    if name is None:
        raise UsageError(
            "The run does not know which encoder its features came from.",
            remedy="Name it with --weights.",
        )
    if weights is not None:
        return name
    from tspcli.encoders.weights import find_made_with

    return find_made_with(
        name, localizer.weights_path, localizer.feature_settings.get("weights_sha256")
    )


def action_head(
    localizer: Localizer, weights: str | None, device: str
) -> tuple[Classifier, Encoder]:
    """Labels from the encoder's own action head, and the encoder."""
    from tspcli.encoders import load_encoder
    from tspcli.errors import LocalizationError
    from tspcli.localization.classes import ActionHeadClassifier

    name = _weights_of(localizer, weights)
    backbone = localizer.feature_settings.get("backbone")
    encoder = load_encoder(name, backbone=backbone, device=device)
    if encoder.class_names is None:
        raise LocalizationError(
            f"The weights {name} have no action head with known class names.",
            remedy="Use the run's own class head: --classes run.",
        )

    def classify(rows: Tensor) -> Tensor:
        logits = encoder.classify(rows)
        assert logits is not None
        return logits

    return ActionHeadClassifier(encoder.class_names, classify), encoder


def extract_videos(
    videos: tuple[str, ...],
    store: Path,
    localizer: Localizer,
    weights: str | None,
    device: str,
    encoder: Encoder | None,
) -> tuple[list[str], list[str]]:
    """Extract the videos as the run's features were; return the failed ones and the others."""
    from tspcli.cli.displays import watch
    from tspcli.errors import LocalizationError
    from tspcli.extraction import ExtractConfig, extract
    from tspcli.sampling import Sampling

    settings = localizer.feature_settings
    chosen: dict[str, Any] = {"backbone": settings.get("backbone"), "device": device}
    if "sampling" in settings:
        sampling = Sampling.from_dict(settings["sampling"])
        for name in ("frame_rate", "clip_length", "stride", "grid_rate"):
            chosen[name] = getattr(sampling, name)
    config = ExtractConfig(weights=_weights_of(localizer, weights), **chosen)
    with watch() as reporter:
        report = extract(videos, store, config=config, encoder=encoder, reporter=reporter)
    failed = []
    for result in report.failed:
        failed.append(result.key)
        say(f"failed: {result.path or result.key}: {result.reason}: {result.detail or ''}", "red")
    keys = sorted(r.key for r in report.videos if r.status in ("done", "kept"))
    if not keys:
        raise LocalizationError(
            "None of the videos could be decoded.", remedy="`tsp extract` tells why for each."
        )
    return failed, keys
