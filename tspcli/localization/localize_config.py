"""What can be chosen about localization; every default stands here once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from tspcli.core.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, Share
from tspcli.errors import UsageError

MAX_SEED = 2**32 - 1
PRECISION = "fp32"
"""The arithmetic of training and prediction on every device, as runs state it. With TF32, proposal
maps differ by 5e-4."""

ClassSource = Literal["segment", "video", "none"]


@dataclass(frozen=True)
class BmnConfig(Settings):
    """The network (Lin et al., ICCV 2019, table 1)."""

    temporal_scale: Annotated[
        PositiveInt, Meta(description="T, the cells into which a video (or a window) is divided.")
    ] = 100
    max_duration: Annotated[
        PositiveInt | None, Meta(description="D, the longest proposal in cells; None means T.")
    ] = None
    n_samples: Annotated[
        PositiveInt, Meta(description="N, the points at which a proposal's features are sampled.")
    ] = 32
    samples_per_bin: Annotated[
        PositiveInt, Meta(description="How many places are averaged for each of these points.")
    ] = 3
    boundary_ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="A proposal is sampled beyond both its ends by this share of its length.",
        ),
    ] = 0.5
    base_channels: Annotated[
        PositiveInt, Meta(description="Width of the first convolution and temporal evaluation.")
    ] = 256
    hidden_channels: Annotated[
        PositiveInt, Meta(description="Width of the features that both evaluations read.")
    ] = 128
    proposal_channels: Annotated[
        PositiveInt, Meta(description="Width after the samples of a proposal are joined.")
    ] = 512
    map_channels: Annotated[
        PositiveInt, Meta(description="Width of the convolutions over the proposal map.")
    ] = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_duration is not None and self.max_duration > self.temporal_scale:
            raise UsageError(
                f"The longest proposal, {self.max_duration} cells, does not fit in "
                f"{self.temporal_scale} cells.",
                option="max_duration",
                value=self.max_duration,
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
class LabelConfig(Settings):
    """What the network learns from an annotation."""

    region_ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="A boundary's region reaches this share of the action's length to each "
            "side (the paper's 1/10) …",
        ),
    ] = 0.1
    region_min_cells: Annotated[
        NonNegativeFloat,
        Meta(description="… but at least this many cells, so that short actions have boundaries."),
    ] = 1.5
    window_coverage: Annotated[
        Share,
        Meta(description="With windows, an action belongs to those that hold this share of it."),
    ] = 0.9


@dataclass(frozen=True)
class LossConfig(Settings):
    """The losses of the paper's sections 4.4 and 4.5 and their weights."""

    boundary_positive: Annotated[
        Share,
        Meta(description="A cell that overlaps a boundary region by more than this is a boundary."),
    ] = 0.5
    proposal_positive: Annotated[
        Share, Meta(description="A proposal with a greater IoU is right (classification).")
    ] = 0.9
    regression_high: Annotated[
        Share, Meta(description="The regression balances three bands of IoU: above this, …")
    ] = 0.7
    regression_low: Annotated[Share, Meta(description="… down to this, and below.")] = 0.3
    regression_weight: Annotated[
        NonNegativeFloat, Meta(description="Weight of the regression loss; the others have 1.")
    ] = 10.0


@dataclass(frozen=True)
class ClassConfig(Settings):
    """The class head that is trained on the features."""

    source: Annotated[
        ClassSource,
        Meta(
            description="segment: from a proposal's own clips; video: one guess for the whole "
            "video, as is usual on ActivityNet; none: proposals stay without labels."
        ),
    ] = "segment"
    hidden: Annotated[
        int, Meta(ge=0, description="Width of its hidden layer; 0 for a linear head.")
    ] = 0
    epochs: Annotated[PositiveInt, Meta(description="Epochs of its training.")] = 60
    learning_rate: Annotated[PositiveFloat, Meta(description="Learning rate of its training.")] = (
        3e-3
    )
    weight_decay: Annotated[NonNegativeFloat, Meta(description="L2 penalty of its training.")] = (
        1e-3
    )
    batch_size: Annotated[PositiveInt, Meta(description="Batch size of its training.")] = 64


@dataclass(frozen=True)
class TrainConfig(Settings):
    """A training run; Adam and its steps as in the paper's section 5.1."""

    model: BmnConfig = field(default_factory=BmnConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    classes: ClassConfig = field(default_factory=ClassConfig)
    # A clip of 16 frames lasts 1.07 s: a shorter window holds nothing of its own.
    window_s: Annotated[
        Annotated[float, Meta(ge=1)] | None,
        Meta(
            description="Cut videos into windows of this many seconds that overlap by half, for "
            "long videos with short actions; otherwise a video is scaled to T cells."
        ),
    ] = None
    epochs: Annotated[PositiveInt, Meta(description="Passes over the training videos.")] = 9
    batch_size: Annotated[PositiveInt, Meta(description="Videos or windows per step.")] = 16
    learning_rate: Annotated[PositiveFloat, Meta(description="Learning rate at the start.")] = 1e-3
    drop_epoch: Annotated[
        PositiveInt, Meta(description="Epoch after which the learning rate is divided by 10.")
    ] = 7
    weight_decay: Annotated[NonNegativeFloat, Meta(description="L2 penalty.")] = 1e-4
    standardize: Annotated[
        bool,
        Meta(description="Scale each feature to mean 0 and deviation 1 over the training set."),
    ] = True
    seed: Annotated[
        int,
        Meta(
            ge=0,
            le=MAX_SEED,
            description="Seed of the initial weights and the order of videos.",
        ),
    ] = 0
    device: Annotated[str, Meta(description="auto, cpu, cuda, …")] = "auto"


@dataclass(frozen=True)
class PredictConfig(Settings):
    """How proposals become predictions."""

    peak_ratio: Annotated[
        Share,
        Meta(
            description="A boundary is a local maximum, or above this share of the video's largest."
        ),
    ] = 0.5
    nms_sigma: Annotated[
        PositiveFloat,
        Meta(description="Width of soft-NMS's Gaussian; larger suppresses less."),
    ] = 0.4
    nms_low: Annotated[
        Share,
        Meta(
            description="Only proposals that overlap by more than a threshold suppress each other; "
            "it grows from this with the proposal's share of the video …"
        ),
    ] = 0.55
    nms_high: Annotated[Share, Meta(description="… to this.")] = 0.9
    max_proposals: Annotated[PositiveInt, Meta(description="Proposals kept per video.")] = 100
    top_classes: Annotated[PositiveInt, Meta(description="Labels given to each proposal.")] = 2
    batch_size: Annotated[PositiveInt, Meta(description="Videos or windows at a time.")] = 16
    device: Annotated[str, Meta(description="auto, cpu, cuda, …")] = "auto"
