"""What experiments on rendered videos consist of: cells, arms, and how large everything is.

A cell is a data set with trainings on it: a share of scenes that belong to their class, a seed for
data set and trainings alike. The design, with its reasons, is ``docs/notes/proof-design.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from reproduction.chain import Arm
from reproduction.dataset import DatasetSpec
from tspcli.errors import UsageError

TAC = Arm("tac", "TAC", "tac")
TAC_MATCHED = Arm("tac-matched", "TAC, matched steps", settings={"region_alpha": 0})
TSP_NONE = Arm("tsp-none", "TSP, no GVF")
TSP_MEAN = Arm("tsp-mean", "TSP, mean GVF", gvf="mean")
TSP_MAX = Arm("tsp-max", "TSP, max GVF", gvf="max")
REGION = Arm("region", "region head alone", heads=("region",))
PERMUTED = Arm("permuted", "TSP, region labels permuted", is_control=True)
ARMS = (TAC, TAC_MATCHED, TSP_NONE, TSP_MAX)


class Cell(NamedTuple):
    """One data set with its trainings.

    Attributes:
        share: Of scenes that belong to their class.
        seed: Of the data set and of all trainings.
        variant: Ends the folder's name where the data set is a variant.
    """

    share: float
    seed: int
    variant: str = ""

    @property
    def name(self) -> str:
        """Its folder below the experiment's."""
        return f"p{self.share:g}{self.variant}/seed{self.seed}"


@dataclass(frozen=True)
class Scale:
    """An experiment on rendered videos.

    Attributes:
        name: As on the command line.
        backbone: A registered backbone.
        device: For training and features.
        jobs: Stages that run at a time, each with ``threads`` threads.
        shares: Of videos whose scene belongs to their class; each seed runs with all of them.
        seeds: Of data sets and trainings.
        n_described: How many of the first seeds run with all scenes belonging to their class, too.
        data: What is rendered; seed and share are the cell's.
        trimmed: Settings of training on trimmed clips, as options of ``tsp pretrain``.
        untrimmed: Likewise of every training on untrimmed videos.
        bmn: Options of ``tsp localize train``.
        resize, crop: Of frames; empty for the backbone's own.
        stride_frames: From feature to feature.
        gvf_stride_frames: From clip to clip of the global features.
        min_gap_s: Shorter gaps between actions are no background.
        control_share: At which share the control runs, too; None for nowhere.
        variant: Of all cells.
        explored: Seeds with the variations of :mod:`reproduction.explore`.
    """

    name: str
    backbone: str
    device: str
    jobs: int
    threads: int
    shares: tuple[float, ...]
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
    arms: tuple[Arm, ...] = ARMS
    n_described: int = 0
    control_share: float | None = None
    variant: str = ""
    explored: tuple[int, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What is run, seed by seed, so that a run that is stopped has whole seeds."""
        cells = []
        for number, seed in enumerate(self.seeds):
            described = (1.0,) if number < self.n_described else ()
            cells += [Cell(share, seed, self.variant) for share in (*self.shares, *described)]
        return tuple(cells)

    def arms_of(self, cell: Cell) -> tuple[Arm, ...]:
        """What is trained in a cell."""
        return (*self.arms, PERMUTED) if cell.share == self.control_share else self.arms

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


FIRST_SEED = 10
"""Smaller ones shaped the design."""

TINY = Scale(
    name="tiny",
    backbone="tiny",
    device="cpu",
    jobs=2,
    threads=1,
    shares=(0.9,),
    seeds=(FIRST_SEED,),
    data=DatasetSpec(),
    resize=(36, 46),
    crop=(32, 32),
    # The stem is trained here, for nothing is there to start from.
    trimmed={
        "epochs": 8,
        "milestones": "6",
        "warmup_epochs": 1,
        "gamma": 0.1,
        "batch_size": 16,
        "clips_per_segment": 3,
        "stem_lr": 0.015,
        "backbone_lr": 0.015,
        "head_lr": 0.015,
        "weight_decay": 0.0005,
    },
    untrimmed={
        "epochs": 4,
        "milestones": "3",
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
        "epochs": 20,
        "drop_epoch": 14,
    },
)

CURVE = replace(
    TINY,
    name="curve",
    shares=(0.9, 0.0, 0.5),
    seeds=tuple(range(FIRST_SEED, FIRST_SEED + 9)),
    n_described=2,
    control_share=0.9,
)
EXPLORE = replace(CURVE, name="explore", explored=CURVE.seeds[:3])

SMALL = Scale(
    name="small",
    backbone="r2plus1d_18",
    device="auto",
    jobs=1,
    threads=8,
    shares=(0.9,),
    seeds=tuple(range(FIRST_SEED, FIRST_SEED + 3)),
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

SCALES = {scale.name: scale for scale in (TINY, CURVE, EXPLORE, SMALL)}


def find_scale(name: str) -> Scale:
    """A scale by name.

    Raises:
        UsageError: If there is none.
    """
    if name not in SCALES:
        raise UsageError(f"There is no scale {name!r}.", remedy=f"Known: {', '.join(SCALES)}.")
    return SCALES[name]
