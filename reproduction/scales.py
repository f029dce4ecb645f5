"""How large an experiment is; every figure of it stands here once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reproduction.dataset import DatasetSpec
from tspcli.errors import UsageError

TRIMMED = "trimmed"
"""The encoder of the stand-in for Kinetics, as it is, without any untrimmed video."""


@dataclass(frozen=True)
class Variant:
    """One way to pretrain on untrimmed videos.

    Attributes:
        name: In folders and tables.
        title: For people.
        heads: See :class:`tspcli.pretraining.Recipe`.
        gvf: ``max``, ``mean`` or ``none``.
        clip_length: Frames a clip.
    """

    name: str
    title: str
    heads: tuple[str, ...] = ("action", "region")
    gvf: Literal["max", "mean", "none"] = "none"
    clip_length: int = 16

    @property
    def recipe(self) -> str:
        """Which kind of recipe it begins with: ``tac`` or ``tsp``."""
        return "tac" if self.heads == ("action",) else "tsp"


VARIANTS = (
    Variant("tac", "TAC", ("action",)),
    Variant("tsp-none", "TSP, no GVF"),
    Variant("tsp-mean", "TSP, mean GVF", gvf="mean"),
    Variant("tsp-max", "TSP, max GVF", gvf="max"),
    Variant("region", "region head alone", ("region",)),
    Variant("tsp-max-8", "TSP, max GVF, clips of 8 frames", gvf="max", clip_length=8),
    Variant("tsp-max-32", "TSP, max GVF, clips of 32 frames", gvf="max", clip_length=32),
)
TAC_SHARE = 0.45
"""How long TAC takes beside TSP: it trains on clips of actions alone."""


def clip_lengths(variants: Sequence[Variant]) -> dict[int, str]:
    """Frames a clip, ascending, to the encoder of TSP with max GVF that was trained with them."""
    chosen = [v for v in variants if v.gvf == "max" and v.recipe == "tsp"]
    return {v.clip_length: v.name for v in sorted(chosen, key=lambda v: v.clip_length)}


@dataclass(frozen=True)
class Scale:
    """An experiment on rendered videos.

    Attributes:
        name: ``tiny`` or ``small``.
        backbone: A registered backbone.
        device: For training and features.
        jobs: Stages that run at a time, each with ``threads`` threads.
        seeds: When none are given.
        data: What is rendered.
        resize, crop: Of frames; empty for the backbone's own.
        trimmed: Settings of training on trimmed clips, as options of ``tsp pretrain``.
        untrimmed: Likewise of every training on untrimmed videos.
        stride_frames: From feature to feature.
        gvf_stride_frames: From clip to clip of the global features.
        bmn: Options of ``tsp localize train``.
        variants: What is compared.
    """

    name: str
    backbone: str
    device: str
    jobs: int
    threads: int
    seeds: tuple[int, ...]
    data: DatasetSpec
    trimmed: Mapping[str, Any]
    untrimmed: Mapping[str, Any]
    bmn: Mapping[str, Any]
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    stride_frames: int = 8
    gvf_stride_frames: int = 16
    min_gap_s: float = 16 / 15
    variants: tuple[Variant, ...] = VARIANTS

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


TINY = Scale(
    name="tiny",
    backbone="tiny",
    device="cpu",
    jobs=2,
    threads=1,
    seeds=(0,),
    data=DatasetSpec(),
    resize=(36, 46),
    crop=(32, 32),
    # The stem is trained here, for nothing is there to start from.
    trimmed={
        "epochs": 10,
        "milestones": "8",
        "warmup_epochs": 1,
        "gamma": 0.1,
        "batch_size": 16,
        "stem_lr": 0.015,
        "backbone_lr": 0.015,
        "head_lr": 0.015,
        "weight_decay": 0.0005,
    },
    untrimmed={
        "epochs": 6,
        "milestones": "4",
        "warmup_epochs": 1,
        "gamma": 0.1,
        "batch_size": 16,
        "clips_per_segment": 2,
        "backbone_lr": 0.005,
        "head_lr": 0.01,
        "weight_decay": 0.0005,
    },
    bmn={
        "temporal_scale": 50,
        "max_duration": 16,
        "channels": 96,
        "batch_size": 8,
        "epochs": 25,
        "drop_epoch": 18,
    },
)

SMALL = Scale(
    name="small",
    backbone="r2plus1d_18",
    device="auto",
    jobs=1,
    threads=8,
    seeds=(0, 1, 2),
    data=DatasetSpec(
        n_train=1000,
        n_valid=300,
        n_trimmed_train=4000,
        n_trimmed_valid=600,
        duration_s=(40.0, 80.0),
        fps=30,
        height=128,
        width=170,
    ),
    trimmed={
        "epochs": 12,
        "milestones": "8,10",
        "warmup_epochs": 1,
        "gamma": 0.1,
        "stem_lr": 0.01,
        "backbone_lr": 0.01,
        "head_lr": 0.01,
        "weight_decay": 0.0005,
    },
    untrimmed={"gamma": 0.1, "backbone_lr": 0.001, "head_lr": 0.004, "weight_decay": 0.0005},
    bmn={"temporal_scale": 100, "max_duration": 24},
)

SCALES = {scale.name: scale for scale in (TINY, SMALL)}


def find_scale(name: str) -> Scale:
    """A scale by name.

    Raises:
        UsageError: If there is none.
    """
    if name not in SCALES:
        raise UsageError(f"There is no scale {name!r}.", remedy=f"Known: {', '.join(SCALES)}.")
    return SCALES[name]


def options_of(values: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command."""
    words: list[str] = []
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words
