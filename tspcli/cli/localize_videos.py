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
    if weights is not None or _is_registered(name):
        return name
    return _checkpoint_of(localizer, name)


def _checkpoint_of(localizer: Localizer, name: str) -> str:
    """Where the checkpoint lies that the features of the run came from, if it is still the same."""
    from tspcli.core.files import file_sha256
    from tspcli.errors import UsageError

    expected = localizer.feature_settings.get("weights_sha256")
    remedy = "Name the checkpoint or its run's folder with --weights."
    if localizer.weights_path is None or expected is None:
        raise UsageError(
            f"The run's features came from the checkpoint {name}, and it does not know its place.",
            remedy=remedy,
        )
    path = Path(localizer.weights_path)
    if not path.is_file():
        raise UsageError(
            f"The run's features came from the checkpoint {path}, which is not there any more.",
            remedy=remedy,
        )
    found = file_sha256(path)
    if found != expected:
        raise UsageError(
            f"The run's features came from another {path} than lies there now: its sha256 was "
            f"{expected}, this one's is {found}.",
            remedy=remedy,
        )
    return str(path)


def _is_registered(name: str) -> bool:
    from tspcli.encoders.weights import list_weights

    return any(entry.name == name for entry in list_weights())


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
