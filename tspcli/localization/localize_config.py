"""What can be chosen about localization; every default stands here once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from tspcli.errors import UsageError

MIN_WINDOW_S = 1.0
MAX_SEED = 2**32 - 1

ClassSource = Literal["segment", "video", "none"]
CLASS_SOURCES: tuple[ClassSource, ...] = ("segment", "video", "none")


@dataclass(frozen=True)
class BmnConfig:
    """The network (Lin et al., ICCV 2019, table 1).

    Attributes:
        temporal_scale: T, the cells into which a video (or a window) is divided.
        max_duration: D, the longest proposal in cells; None means T.
        n_samples: N, the points at which a proposal's features are sampled.
        samples_per_bin: Features at this many places are averaged for each point.
        boundary_ratio: A proposal is sampled beyond both its ends by this share of its length.
        base_channels: Width of the first convolution and of the temporal evaluation.
        hidden_channels: Width of the features that both evaluations read.
        proposal_channels: Width after the samples of a proposal are joined.
        map_channels: Width of the convolutions over the proposal map.
    """

    temporal_scale: int = 100
    max_duration: int | None = None
    n_samples: int = 32
    samples_per_bin: int = 3
    boundary_ratio: float = 0.5
    base_channels: int = 256
    hidden_channels: int = 128
    proposal_channels: int = 512
    map_channels: int = 128

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "boundary_ratio" and value is not None and value < 1:
                raise UsageError(f"{_spoken(name)} is {value}.", remedy="Give 1 or more.")
        if self.max_duration is not None and self.max_duration > self.temporal_scale:
            raise UsageError(
                f"The longest proposal, {self.max_duration} cells, does not fit in "
                f"{self.temporal_scale} cells.",
                remedy="Give a max duration up to the temporal scale.",
            )
        if not 0 <= self.boundary_ratio <= 10:
            raise UsageError(
                f"The boundary ratio is {self.boundary_ratio}.", remedy="The paper's is 0.5."
            )

    @staticmethod
    def widths(base_channels: int) -> dict[str, int]:
        """All widths in the default proportions to the base's."""
        default = BmnConfig()
        names = ("base_channels", "hidden_channels", "proposal_channels", "map_channels")
        scale = base_channels / default.base_channels
        return {name: max(1, round(getattr(default, name) * scale)) for name in names}

    @property
    def durations(self) -> int:
        """D, resolved."""
        return self.max_duration or self.temporal_scale


@dataclass(frozen=True)
class LabelConfig:
    """What the network is to learn from an annotation.

    Attributes:
        region_ratio: A boundary's region reaches this share of the action's length to each side
            (the paper's 1/10) …
        region_min_cells: … but at least so many cells, so that short actions have boundaries too.
        window_coverage: With windows, an action belongs to those that hold this share of it.
    """

    region_ratio: float = 0.1
    region_min_cells: float = 1.5
    window_coverage: float = 0.9

    def __post_init__(self) -> None:
        _require("Region ratio", self.region_ratio, 0, 10)
        _require("Region min cells", self.region_min_cells, 0, math.inf)
        _require("Window coverage", self.window_coverage, 0, 1)


@dataclass(frozen=True)
class LossConfig:
    """The losses of the paper's sections 4.4 and 4.5 and their weights.

    Attributes:
        boundary_positive: A cell whose overlap with a boundary region exceeds this is a boundary.
        proposal_positive: A proposal whose IoU exceeds this is right (classification).
        regression_high: The regression balances three bands of IoU: above this, …
        regression_low: … down to this, and below.
        regression_weight: Weight of the regression loss; the others have 1.
    """

    boundary_positive: float = 0.5
    proposal_positive: float = 0.9
    regression_high: float = 0.7
    regression_low: float = 0.3
    regression_weight: float = 10.0

    def __post_init__(self) -> None:
        names = ("boundary_positive", "proposal_positive", "regression_high", "regression_low")
        for name in names:
            _require(_spoken(name), getattr(self, name), 0, 1)
        _require("Regression weight", self.regression_weight, 0, math.inf)


@dataclass(frozen=True)
class ClassConfig:
    """The class head that is trained on the features.

    Attributes:
        source: ``segment``: from a proposal's own clips; ``video``: one guess for the whole video,
            as is usual on ActivityNet; ``none``: proposals stay without labels.
        hidden: Width of its hidden layer; 0 for a linear head.
        epochs, learning_rate, weight_decay, batch_size: Of its training.
    """

    source: ClassSource = "segment"
    hidden: int = 0
    epochs: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.source not in CLASS_SOURCES:
            raise UsageError(
                f"{self.source!r} is no source of classes.",
                remedy=f"Choose one of {', '.join(CLASS_SOURCES)}.",
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run; Adam and its steps as in the paper's section 5.1.

    Attributes:
        model, labels, loss, classes: See there.
        window_s: None: a whole video is scaled to T cells. Seconds: videos are cut into windows of
            this length that overlap by half, for long videos with short actions.
        epochs: Passes over the training videos.
        batch_size: Videos or windows a step.
        learning_rate: Of the first ``drop_epoch`` epochs; of those after them it is a tenth.
        drop_epoch: 7 of 9: 7 epochs at 1e-3 and 2 at 1e-4.
        weight_decay: L2 penalty.
        standardize: Scale each feature to mean 0 and deviation 1 over the training set first.
        seed: Of the initial weights and the order of videos.
        device: ``auto``, ``cpu``, ``cuda``, …
    """

    model: BmnConfig = field(default_factory=BmnConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    classes: ClassConfig = field(default_factory=ClassConfig)
    window_s: float | None = None
    epochs: int = 9
    batch_size: int = 16
    learning_rate: float = 1e-3
    drop_epoch: int = 7
    weight_decay: float = 1e-4
    standardize: bool = True
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "drop_epoch"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{_spoken(name)} is {getattr(self, name)}.", remedy="Give 1 or more."
                )
        if self.window_s is not None:
            # A clip of 16 frames lasts 1.07 s: a shorter window holds nothing of its own.
            _require("Window", self.window_s, MIN_WINDOW_S, math.inf)
        _require("Learning rate", self.learning_rate, 0, math.inf, above=True)
        _require("Weight decay", self.weight_decay, 0, math.inf)
        _require("Seed", self.seed, 0, MAX_SEED)


@dataclass(frozen=True)
class PredictConfig:
    """How proposals become predictions.

    Attributes:
        peak_ratio: A boundary is a local maximum, or above this share of the video's largest.
        nms_sigma: Width of soft-NMS's Gaussian; larger suppresses less.
        nms_low, nms_high: Only proposals that overlap by more than a threshold suppress each other;
            it grows from low to high with the proposal's share of the video.
        max_proposals: Proposals kept a video.
        top_classes: Labels given to each proposal.
        batch_size: Videos or windows at a time.
        device: ``auto``, ``cpu``, ``cuda``, …
    """

    peak_ratio: float = 0.5
    nms_sigma: float = 0.4
    nms_low: float = 0.55
    nms_high: float = 0.9
    max_proposals: int = 100
    top_classes: int = 2
    batch_size: int = 16
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("max_proposals", "top_classes", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{_spoken(name)} is {getattr(self, name)}.", remedy="Give 1 or more."
                )
        _require("NMS sigma", self.nms_sigma, 0, math.inf, above=True)
        for name in ("peak_ratio", "nms_low", "nms_high"):
            _require(_spoken(name), getattr(self, name), 0, 1)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """All settings as plain values."""
    return asdict(config)


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """What :func:`config_to_dict` gave."""
    nested = {
        "model": BmnConfig,
        "labels": LabelConfig,
        "loss": LossConfig,
        "classes": ClassConfig,
    }
    known = {item.name for item in fields(TrainConfig)}
    chosen = {key: value for key, value in values.items() if key in known}
    for name, kind in nested.items():
        if name in chosen:
            chosen[name] = kind(**chosen[name])
    return TrainConfig(**chosen)


def _require(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Raise unless a number is finite and in the range; with ``above``, not ``low`` itself."""
    if math.isfinite(value) and low <= value <= high and not (above and value == low):
        return
    wanted = f"above {low:g}" if above else f"from {low:g}"
    wanted += "" if high == math.inf else f" to {high:g}" if high < 1e6 else f" to {high}"
    raise UsageError(f"{name} is {value}.", remedy=f"Give a finite number {wanted}.")


def _spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()
