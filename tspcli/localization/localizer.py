"""Localization checkpoints: written completely or not at all, loaded without running code."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from tspcli.annotations import AnnotationOrigin
from tspcli.core.files import replacing
from tspcli.core.text import MALFORMED
from tspcli.errors import CheckpointError, UsageError
from tspcli.localization.boundary_matching import Bmn
from tspcli.localization.classes import ClassHead
from tspcli.localization.localize_config import TrainConfig

FORMAT = "tspcli-localizer"
BEST = "best.pth"
LAST = "last.pth"


@dataclass
class Localizer:
    """A trained network with all that predicting needs.

    Attributes:
        model: The network.
        config: How it was trained.
        class_head: Its class head, or None.
        feature_settings: Of the stores that it was trained on; empty if they have none.
        weights: Name of the encoder's weights, or None.
        weights_path: Their path, if they are not registered and the stores hold it.
        origins: Where the annotations of its training and validation were read.
    """

    model: Bmn
    config: TrainConfig
    class_head: ClassHead | None = None
    feature_settings: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    weights_path: str | None = None
    origins: tuple[AnnotationOrigin, ...] = ()

    @property
    def feature_dim(self) -> int:
        """C, the width of the features that it takes."""
        return len(self.model.mean)


def localizer_state(localizer: Localizer) -> dict[str, Any]:
    """Tensors and plain values alone."""
    head = localizer.class_head
    return {
        "format": FORMAT,
        "format_version": 1,
        "config": localizer.config.to_dict(),
        "feature_dim": localizer.feature_dim,
        "feature_settings": localizer.feature_settings,
        "weights": localizer.weights,
        "weights_path": localizer.weights_path,
        "annotations": [asdict(origin) for origin in localizer.origins],
        "model": localizer.model.state_dict(),
        "labels": None if head is None else list(head.labels),
        "class_head": None if head is None else head.state_dict(),
    }


def save(path: str | Path, values: dict[str, Any]) -> None:
    """Write a checkpoint aside and rename it into place."""
    with replacing(path) as aside:
        torch.save(values, aside)


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a localization checkpoint.

    Raises:
        CheckpointError: If it is missing, carries code, or it is another kind of file.
    """
    path = Path(path)
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist.", remedy="Train with `tsp localize train --out RUN` first."
        ) from None
    except Exception as error:  # torch reports damage, and code that wants to run, in many ways
        first_line = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{path} is no checkpoint that can be loaded safely ({first_line}).",
            remedy="Give a run folder of `tsp localize train`, or a .pth file in it.",
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds no localization network.",
            remedy="Give a run folder of `tsp localize train`, or a .pth file in it.",
        )
    return values


def localizer_from_state(values: dict[str, Any], device: torch.device | str = "cpu") -> Localizer:
    """Build what :func:`localizer_state` described.

    Raises:
        CheckpointError: If parts are missing or do not fit together.
    """
    try:
        known = {item.name for item in fields(TrainConfig)}
        chosen = {name: value for name, value in values["config"].items() if name in known}
        config = TrainConfig.from_dict(chosen, "the checkpoint")
        model = Bmn(int(values["feature_dim"]), config.model)
        model.load_state_dict(values["model"])
        head = None
        if values["class_head"] is not None:
            head = ClassHead(int(values["feature_dim"]), values["labels"], config.classes)
            head.load_state_dict(values["class_head"])
            head.to(device).eval()
        settings = dict(values["feature_settings"])
        weights, weights_path = values["weights"], values.get("weights_path")
        origins = tuple(
            AnnotationOrigin(**{name: str(value) for name, value in origin.items()})
            for origin in values.get("annotations", ())
        )
    # Wrong shapes are a RuntimeError of torch.
    except (*MALFORMED, RuntimeError, UsageError) as error:
        raise CheckpointError(
            f"The localization checkpoint is damaged ({type(error).__name__}: {error}).",
            remedy="Train again, or take another checkpoint of the run.",
        ) from error
    return Localizer(
        model.to(device).eval(), config, head, settings, weights, weights_path, origins
    )


def load_localizer(run: str | Path, device: torch.device | str = "cpu") -> Localizer:
    """Load a trained network from its run folder (its best epoch) or from a checkpoint.

    Raises:
        CheckpointError: If it is not there, or not such a file.
    """
    path = Path(run)
    if path.is_dir():
        path = path / BEST
    return localizer_from_state(load(path, device), device)
