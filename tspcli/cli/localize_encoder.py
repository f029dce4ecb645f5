"""The encoder of a localizer's run: labels from its action head, and features of new videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from tspcli.cli.console import say
from tspcli.cli.displays import watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tspcli.encoders import Encoder
    from tspcli.localization.classes import Classifier
    from tspcli.localization.localizer import Localizer


def action_head(
    localizer: Localizer, weights: str | None, device: str
) -> tuple[Classifier, Encoder]:
    """Labels from the encoder's own action head, and the encoder."""
    from tspcli.encoders import load_encoder
    from tspcli.errors import LocalizationError
    from tspcli.localization.classes import ActionHeadClassifier

    name, settings = _weights_of(localizer, weights), localizer.feature_settings
    encoder = load_encoder(name, backbone=settings.get("backbone"), device=device)
    if encoder.class_names is None:
        raise LocalizationError(
            f"The weights {name} have no action head with known class names.",
            remedy="Use the run's own class head: --classes run.",
        )
    classify = cast("Callable[[Tensor], Tensor]", encoder.classify)
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
    from tspcli.errors import LocalizationError
    from tspcli.extraction import ExtractConfig, extract

    name = _weights_of(localizer, weights)
    config = ExtractConfig.like(localizer.feature_settings, weights=name, device=device)
    with watch() as reporter:
        report = extract(videos, store, config=config, encoder=encoder, reporter=reporter)
    for result in report.failed:
        say(result.line(), "red")
    keys = sorted(r.key for r in report.videos if r.status in ("done", "kept"))
    if not keys:
        raise LocalizationError("None of the videos could be decoded.")
    return [result.key for result in report.failed], keys


def _weights_of(localizer: Localizer, weights: str | None) -> str:
    from tspcli.encoders.weights import find_made_with
    from tspcli.errors import UsageError

    if weights is not None:
        return weights
    if localizer.weights is None:
        raise UsageError("The run's encoder is unknown.", remedy="Name it with --weights.")
    sha256 = localizer.feature_settings.get("weights_sha256")
    return find_made_with(localizer.weights, localizer.weights_path, sha256)
