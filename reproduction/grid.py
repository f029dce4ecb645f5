"""The grid of the experiment on rendered videos: cells, arms, scales, and the stages of each.

A cell is a data set with trainings on it: a share of scenes that belong to their class, a seed for
data set and trainings alike. The design and the analysis of the figures are fixed in
``docs/reproduction.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from reproduction import dataset
from reproduction.chain import TRIMMED, Arm, Chain, options_of
from reproduction.dataset import DatasetSpec
from reproduction.measures import RUN
from reproduction.outcome import Group
from reproduction.stages import Command, Stage, Tell
from tspcli.errors import UsageError

SINGLE_FRAME = "single-frame"
"""A classifier of single frames of the trimmed clips, which measures what the scene gives away."""

DATA, TABLES, TRIMMED_TABLES, CACHE = "data", "tables", "trimmed-tables", "cache"
LABELS = "action_label_mapping.json"
TABLE_FILES = ("train_groundtruth.csv", "valid_groundtruth.csv", LABELS)


TAC = Arm("tac", "TAC", "tac")
TAC_MATCHED = Arm("tac-matched", "TAC, matched steps", settings={"region_alpha": 0})
TSP_NONE = Arm("tsp-none", "TSP, no GVF")
TSP_MEAN = Arm("tsp-mean", "TSP, mean GVF", gvf="mean")
TSP_MAX = Arm("tsp-max", "TSP, max GVF", gvf="max")
REGION = Arm("region", "region head alone", heads=("region",))
PERMUTED = Arm("permuted", "TSP, region labels permuted", is_control=True)
ARMS = (TAC, TAC_MATCHED, TSP_NONE, TSP_MAX)


def _longer(arm: Arm, frames: int) -> Arm:
    title = f"{arm.title}, clips of {frames} frames"
    return replace(arm, name=f"{arm.name}-{frames}", title=title, clip_length=frames)


EXPLORATORY = tuple(_longer(arm, frames) for frames in (8, 32) for arm in (TAC_MATCHED, TSP_NONE))
"""Arms beyond the plan's contrasts, for a few seeds at the plan's largest share."""


class Cell(NamedTuple):
    """One data set with its trainings.

    Attributes:
        share: Of scenes that belong to their class.
        seed: Of the data set and of all trainings.
    """

    share: float
    seed: int

    @property
    def name(self) -> str:
        """Its folder below the experiment's."""
        return f"p{self.share:g}/seed{self.seed}"


@dataclass(frozen=True)
class Scale:
    """An experiment on rendered videos.

    Attributes:
        name: As on the command line.
        backbone: A registered backbone.
        device: For training and features.
        jobs: Stages that run at a time, each with ``threads`` threads.
        cells: What is run.
        data: What is rendered; seed and share are the cell's.
        trimmed: Settings of training on trimmed clips, as options of ``tsp pretrain``.
        untrimmed: Likewise of every training on untrimmed videos.
        bmn: Options of ``tsp localize train``.
        resize, crop: Of frames; empty for the backbone's own.
        stride_frames: From feature to feature.
        gvf_stride_frames: From clip to clip of the global features.
        min_gap_s: Shorter gaps between actions are no background.
        control_share: At which share the control runs.
        explored: Seeds with exploratory arms, at the control's share.
    """

    name: str
    backbone: str
    device: str
    jobs: int
    threads: int
    cells: tuple[Cell, ...]
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
    control_share: float = 0.9
    explored: tuple[int, ...] = ()

    def arms_of(self, cell: Cell) -> tuple[Arm, ...]:
        """What is trained in a cell."""
        arms = self.arms
        if cell.share == self.control_share and len(self.cells) > 1:
            arms += (PERMUTED,)
            if cell.seed in self.explored:
                arms += EXPLORATORY
        return arms

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


TINY = Scale(
    name="tiny",
    backbone="tiny",
    device="cpu",
    jobs=2,
    threads=1,
    cells=(Cell(0.9, 10),),
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

FIRST_SEED = 10
"""Smaller ones shaped the design."""
CURVE = replace(
    TINY,
    name="curve",
    # Seed by seed, so that a run that is stopped has whole seeds.
    cells=(
        *(Cell(p, seed) for seed in range(FIRST_SEED, FIRST_SEED + 9) for p in (0.9, 0.0, 0.5)),
        *(Cell(1.0, seed) for seed in range(FIRST_SEED, FIRST_SEED + 2)),
    ),
    explored=tuple(range(FIRST_SEED, FIRST_SEED + 3)),
)

SMALL = Scale(
    name="small",
    backbone="r2plus1d_18",
    device="auto",
    jobs=1,
    threads=8,
    cells=tuple(Cell(0.9, seed) for seed in range(FIRST_SEED, FIRST_SEED + 3)),
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

SCALES = {scale.name: scale for scale in (TINY, CURVE, SMALL)}


def find_scale(name: str) -> Scale:
    """A scale by name.

    Raises:
        UsageError: If there is none.
    """
    if name not in SCALES:
        raise UsageError(f"There is no scale {name!r}.", remedy=f"Known: {', '.join(SCALES)}.")
    return SCALES[name]


class GridPlan:
    """Lists the stages of an experiment on rendered videos.

    Args:
        scale: What is run, and how.
        root: The experiment's folder.
    """

    def __init__(self, scale: Scale, root: Path) -> None:
        self.scale, self.root = scale, root

    def stages(self) -> list[Stage]:
        """All stages; those that a stage reads stand before it."""
        return [stage for cell in self.scale.cells for stage in self._cell(cell)]

    def groups(self) -> list[Group]:
        """What the report shows: cells that differ in their seed alone."""
        titles = {TRIMMED: "trimmed clips alone"}
        arms = [arm for cell in self.scale.cells for arm in self.scale.arms_of(cell)]
        titles.update({arm.name: arm.title for arm in arms})
        groups = []
        for share in sorted({cell.share for cell in self.scale.cells}):
            cells = [cell for cell in self.scale.cells if cell.share == share]
            groups.append(
                Group(
                    f"Rendered videos, p = {share:g}",
                    {cell.seed: self.root / cell.name for cell in cells},
                    titles,
                    {cell.seed: self._data(cell) / dataset.ANNOTATIONS for cell in cells},
                    share=share,
                )
            )
        return groups

    def remarks(self) -> list[str]:
        """What a reader of the tables has to know."""
        return [
            "Videos that the program renders, a small encoder, a BMN on each encoder's features. "
            "In a share p of the videos the scene belongs to the class of the action. The last "
            "epoch of every training counts; nothing is chosen on the validation videos."
        ]

    def _cell(self, cell: Cell) -> list[Stage]:
        chain = self.chain(cell)
        trimmed = self._trimmed_chain(cell, chain)
        return [
            self._render(cell),
            self._tables(cell, chain),
            self._trimmed_tables(cell),
            self._cache(cell, chain, trimmed),
            *(self._train_on_trimmed(cell, trimmed, name) for name in (TRIMMED, SINGLE_FRAME)),
            chain.extract_stage(SINGLE_FRAME, clip_length=1),
            *chain.stages(self.scale.arms_of(cell)),
        ]

    def _stage_name(self, cell: Cell, name: str) -> str:
        return f"{cell.name}/{name}"

    def _data(self, cell: Cell) -> Path:
        return self.root / self._stage_name(cell, DATA)

    def _render(self, cell: Cell) -> Stage:
        spec = replace(self.scale.data, seed=cell.seed, scene_share=cell.share)

        def call(folder: Path, tell: Tell) -> None:
            dataset.render_experiment(
                spec,
                folder,
                processes=self.scale.threads,
                on_video=lambda done, total: tell(f"{done} of {total} videos"),
            )

        return Stage(
            self._stage_name(cell, DATA),
            call=call,
            outputs=(dataset.VIDEOS, dataset.TRIMMED, dataset.ANNOTATIONS, dataset.TRIMMED_TABLE),
            settings=asdict(spec),
            cost=80,
            about="render the videos",
        )

    def _tables(self, cell: Cell, chain: Chain) -> Stage:
        out, videos = chain.train.parent, self._data(cell) / dataset.VIDEOS
        annotations = self._data(cell) / dataset.ANNOTATIONS
        convert: Command = ("annotations", "activitynet", str(annotations), "--out", str(out))
        convert += ("--videos", str(videos / "train"), "--videos", str(videos / "valid"))
        convert += ("--min-gap", f"{self.scale.min_gap_s:.6f}")
        check = ("annotations", "check", "--train", str(chain.train), "--valid", str(chain.valid))
        return Stage(
            self._stage_name(cell, TABLES),
            (convert, (*check, "--videos", str(videos))),
            after=(self._stage_name(cell, DATA),),
            outputs=TABLE_FILES,
            cost=3,
            about="annotations to tables",
        )

    def _trimmed_tables(self, cell: Cell) -> Stage:
        data, name = self._data(cell), self._stage_name(cell, TRIMMED_TABLES)
        convert: Command = ("annotations", "csv", str(data / dataset.TRIMMED_TABLE))
        convert += ("--out", str(self.root / name))
        for split in ("train", "valid"):
            convert += ("--videos", f"{split}={data / dataset.TRIMMED / split}")
        return Stage(
            name,
            (convert,),
            after=(self._stage_name(cell, DATA),),
            outputs=TABLE_FILES,
            cost=3,
            about="annotations of the trimmed clips to tables",
        )

    def _cache(self, cell: Cell, *chains: Chain) -> Stage:
        name = self._stage_name(cell, CACHE)
        unused = self.root / name / "none"
        return Stage(
            name,
            tuple((*c.pretrain("tac-activitynet", unused), "--cache-only") for c in chains),
            after=tuple(self._stage_name(cell, n) for n in (DATA, TABLES, TRIMMED_TABLES)),
            cost=30,
            about="decode all videos once",
        )

    def chain(self, cell: Cell) -> Chain:
        """What a cell's stages have in common."""
        scale, tables = self.scale, self.root / self._stage_name(cell, TABLES)
        cache = self.root / self._stage_name(cell, CACHE) / "clips"
        # The codec is named, so that results do not change when the default does.
        options = ["--cache", str(cache), "--cache-codec", "jpeg"]
        if scale.jobs > 1:
            options += ["--workers", "0"]
        for name in ("resize", "crop"):
            if size := getattr(scale, name):
                options += [f"--{name}", ",".join(map(str, size))]
        trimmed = self._stage_name(cell, TRIMMED)
        weights = str(self.root / trimmed / RUN / "last.pth")
        annotations = self._data(cell) / dataset.ANNOTATIONS
        return Chain(
            root=self.root,
            prefix=f"{cell.name}/",
            seed=cell.seed,
            folders=(self._data(cell) / dataset.VIDEOS,),
            train=tables / TABLE_FILES[0],
            valid=tables / TABLE_FILES[1],
            labels=tables / LABELS,
            before=tuple(self._stage_name(cell, name) for name in (DATA, TABLES, CACHE)),
            annotated_train=annotations,
            annotated_valid=annotations,
            subsets=("validation", "testing"),
            recipe_suffix="activitynet",
            backbone=scale.backbone,
            device=scale.device,
            init=weights,
            init_stage=trimmed,
            gvf_weights=weights,
            pretrain_options=tuple(options),
            localize_options=tuple(options_of(scale.bmn)),
            untrimmed=scale.untrimmed,
            stride_frames=scale.stride_frames,
            gvf_stride_frames=scale.gvf_stride_frames,
            workers=scale.threads,
        )

    def _trimmed_chain(self, cell: Cell, chain: Chain) -> Chain:
        """The same on the trimmed clips."""
        tables = self.root / self._stage_name(cell, TRIMMED_TABLES)
        train, valid, labels = (tables / name for name in TABLE_FILES)
        folders = (self._data(cell) / dataset.TRIMMED,)
        return replace(chain, folders=folders, train=train, valid=valid, labels=labels)

    def _train_on_trimmed(self, cell: Cell, chain: Chain, name: str) -> Stage:
        run = self.root / self._stage_name(cell, name) / RUN
        words = [*chain.pretrain("tac-activitynet", run), "--init", "random"]
        if name == SINGLE_FRAME:
            words += ["--clip-length", "1"]
        return Stage(
            self._stage_name(cell, name),
            ((*words, *options_of(self.scale.trimmed)),),
            after=tuple(self._stage_name(cell, n) for n in (TRIMMED_TABLES, CACHE)),
            outputs=(f"{RUN}/last.pth", f"{RUN}/results.jsonl"),
            cost=150 if name == TRIMMED else 30,
            about="train on trimmed clips" if name == TRIMMED else "train on single frames",
        )


def cells_of(scale: Scale, seeds: Sequence[int] | None) -> tuple[Cell, ...]:
    """The cells of a scale, with other seeds if some are given."""
    if seeds is None:
        return scale.cells
    shares = dict.fromkeys(cell.share for cell in scale.cells)
    return tuple(Cell(share, seed) for seed in seeds for share in shares)
