"""The experiment of the paper on ActivityNet v1.3 and THUMOS14, with the official recipes.

What it needs lies in one folder, in the layout of :data:`LAYOUT`; :meth:`FullPlan.missing` names
what is not there before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from reproduction.chain import TRIMMED, Arm, Chain, options_of
from reproduction.measures import COLUMNS, Column
from reproduction.outcome import Group
from reproduction.published import PUBLISHED_ACTIVITYNET, PUBLISHED_NOTE
from reproduction.scales import ARMS, REGION, TSP_MAX, TSP_MEAN
from reproduction.stages import ReproductionError, Stage
from tspcli.annotations.dialects import Role
from tspcli.core.files import replacing

LAYOUT = """\
activitynet/activity_net.v1-3.min.json
activitynet/videos/train/v_*.mp4, activitynet/videos/valid/v_*.mp4
thumos14/annotation/*_val.txt, thumos14/annotation/*_test.txt
thumos14/videos/valid/video_validation_*.mp4, thumos14/videos/test/video_test_*.mp4
"""
MISSING_FILE = "missing.txt"
_SHOWN = 5
_LABELS = "action_label_mapping.json"
_THUMOS_COLUMNS = (
    *(Column(f"map_0.{tenth}0", f"mAP@0.{tenth}") for tenth in range(3, 8)),
    *(column for column in COLUMNS if not column.key.startswith("map_")),
)


@dataclass(frozen=True)
class RealDataset:
    """One of the paper's data sets.

    Attributes:
        name: Its folder, in the data and in the experiment; also the protocol of its evaluation and
            the end of its recipes' names.
        title: For people.
        annotations: Below its folder: ActivityNet's JSON, or THUMOS14's folder of class files.
        train, valid: Names of the splits: folders of videos, and of the tables.
        stride_frames: From feature to feature, as released.
        bmn: Options of ``tsp localize train``.
        columns: Of the table.
    """

    name: Literal["activitynet", "thumos14"]
    title: str
    annotations: str
    train: str
    valid: str
    stride_frames: int
    bmn: Mapping[str, Any]
    columns: tuple[Column, ...] = COLUMNS
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    published_note: str = ""


ACTIVITYNET = RealDataset(
    name="activitynet",
    title="ActivityNet v1.3",
    annotations="activity_net.v1-3.min.json",
    train="train",
    valid="valid",
    stride_frames=16,
    bmn={"temporal_scale": 100, "classes": "video"},
    published={TSP_MAX.name: PUBLISHED_ACTIVITYNET},
    published_note=PUBLISHED_NOTE,
)
THUMOS14 = RealDataset(
    name="thumos14",
    title="THUMOS14",
    annotations="annotation",
    train="valid",
    valid="test",
    stride_frames=1,
    bmn={"window_s": 30, "temporal_scale": 128, "max_duration": 64},
    columns=_THUMOS_COLUMNS,
)


LENGTHS = tuple(
    replace(TSP_MAX, name=f"tsp-max-{n}", title=f"{TSP_MAX.title}, clips of {n} frames",
            clip_length=n)
    for n in (8, 32)
)  # fmt: skip


@dataclass(frozen=True)
class FullScale:
    """The paper's experiment.

    Attributes:
        backbone: A registered backbone.
        init: Weights to start from, by name in the registry or path.
        gvf_weights: The encoder of the global features, likewise.
        gpus: Processes of each training, one a device.
        settings: Settings of the official recipes to replace.
        extract_workers: Decode processes; 0 lets the program choose.
    """

    name: str = "full"
    backbone: str = "r2plus1d_34"
    init: str = "r2plus1d_34-ig65m_kinetics400"
    gvf_weights: str = "r2plus1d_34-tac_on_kinetics"
    device: str = "auto"
    jobs: int = 1
    threads: int = 8
    gpus: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    datasets: tuple[RealDataset, ...] = (ACTIVITYNET, THUMOS14)
    settings: Mapping[str, Any] = field(default_factory=dict)
    pretrain_options: tuple[str, ...] = ()
    extract_workers: int = 0
    arms: tuple[Arm, ...] = (*ARMS, TSP_MEAN, REGION, *LENGTHS)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


FULL = FullScale()


class FullPlan:
    """Lists the stages of the paper's experiment.

    Args:
        scale: How it is computed.
        root: The experiment's folder.
        seeds: Of the trainings.
        data: The folder of the data sets; see :data:`LAYOUT`.
        skip_missing: Leave out the annotated videos that are not there.
    """

    def __init__(
        self,
        scale: FullScale,
        root: Path,
        seeds: Sequence[int],
        data: Path,
        *,
        skip_missing: bool = False,
    ) -> None:
        self.scale, self.root, self.seeds, self.data = scale, root, tuple(seeds), data
        self.skip_missing = skip_missing
        self._absent: list[str] = []

    def require_everything(self) -> None:
        """Name all that is missing, before anything is computed.

        Raises:
            ReproductionError: With how many, the first few, and the file that lists all of them.
        """
        weights, files, videos = self.missing()
        self._absent = videos
        fatal = [*weights, *files, *([] if self.skip_missing else videos)]
        if not fatal:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / MISSING_FILE
        with replacing(path) as aside:
            aside.write_text("".join(f"{name}\n" for name in fatal), encoding="utf-8")
        more = f" and {len(fatal) - _SHOWN} more" if len(fatal) > _SHOWN else ""
        raise ReproductionError(
            f"{len(weights)} weights, {len(files)} files or folders and {len(videos)} annotated "
            f"videos are missing: {', '.join(fatal[:_SHOWN])}{more}; all in {path}.",
            remedy="Fetch weights with `tsp weights fetch NAME`; the layout of --data is in "
            "docs/reproduction.md. --skip-missing-videos leaves such videos out.",
        )

    def missing(self) -> tuple[list[str], list[str], list[str]]:
        """Names of weights, of files and folders, and of annotated videos that are not there."""
        weights = [name for name in (self.scale.init, self.scale.gvf_weights) if not _at_hand(name)]
        files: list[str] = []
        videos: list[str] = []
        for item in self.scale.datasets:
            folder = self.data / item.name
            annotations = folder / item.annotations
            if not annotations.exists():
                files.append(str(annotations))
                continue
            roles: tuple[tuple[str, Role], ...]
            roles = ((item.train, "training"), (item.valid, "validation"))
            for split, role in roles:
                place = folder / "videos" / split
                if not place.is_dir():
                    files.append(str(place))
                    continue
                there = {path.stem.removeprefix("v_") for path in place.rglob("*.*")}
                wanted = _annotated(annotations, role)
                videos += [f"{place}/{name}" for name in wanted if name not in there]
        return list(dict.fromkeys(weights)), files, videos

    def stages(self) -> list[Stage]:
        """All stages; those that a stage reads stand before it."""
        stages = []
        for item in self.scale.datasets:
            stages.append(self._tables(item))
            for seed in self.seeds:
                stages += self._chain(item, seed).stages(self.scale.arms)
        return stages

    def groups(self) -> list[Group]:
        """What the report shows."""
        titles = {TRIMMED: "TAC on Kinetics", **{arm.name: arm.title for arm in self.scale.arms}}
        return [
            Group(
                item.title,
                {seed: self.root / item.name / f"seed{seed}" for seed in self.seeds},
                titles,
                dict.fromkeys(self.seeds, self._annotations(item)[1]),
                columns=item.columns,
                published=item.published,
                note=item.published_note,
            )
            for item in self.scale.datasets
        ]

    def remarks(self) -> list[str]:
        """What a reader has to know beside the tables."""
        remarks = ["Official recipes; a BMN on each encoder's features, trained by this program."]
        if self._absent:
            remarks.append(
                f"{len(self._absent)} annotated videos are not there and were left out: figures "
                "are not comparable with those of all videos."
            )
        return remarks

    def _folders(self, item: RealDataset) -> tuple[Path, ...]:
        videos = self.data / item.name / "videos"
        return tuple(videos / split for split in dict.fromkeys((item.train, item.valid)))

    def _table(self, item: RealDataset, split: str) -> Path:
        return self.root / item.name / "tables" / f"{split}_groundtruth.csv"

    def _annotations(self, item: RealDataset) -> tuple[Path, Path]:
        """What localization learns from, and what it is measured against."""
        if item.name == "activitynet":
            path = self.data / item.name / item.annotations
            return path, path
        return self._table(item, item.train), self._table(item, item.valid)

    def _tables(self, item: RealDataset) -> Stage:
        annotations = self.data / item.name / item.annotations
        out = self.root / item.name / "tables"
        words = ["annotations", item.name, str(annotations), "--out", str(out)]
        for split, folder in zip((item.train, item.valid), self._folders(item), strict=True):
            words += ["--videos", f"{split}={folder}"]
        given = sorted(annotations.glob("*.txt")) if annotations.is_dir() else [annotations]
        given += sorted(p for folder in self._folders(item) for p in folder.rglob("*.*"))
        names = [f"{split}_groundtruth.csv" for split in (item.train, item.valid)]
        return Stage(
            f"{item.name}/tables",
            (tuple(words),),
            outputs=(*names, _LABELS),
            files=tuple(given),
            cost=20,
            about=f"{item.title}: annotations to tables",
        )

    def _chain(self, item: RealDataset, seed: int) -> Chain:
        scale = self.scale
        learned, measured = self._annotations(item)
        options = ["--cache", str(self.root / item.name / "clips"), "--cache-codec", "jpeg"]
        options += scale.pretrain_options
        if scale.gpus > 1:
            options += ["--gpus", str(scale.gpus)]
        return Chain(
            root=self.root,
            prefix=f"{item.name}/seed{seed}/",
            seed=seed,
            folders=self._folders(item),
            train=self._table(item, item.train),
            valid=self._table(item, item.valid),
            labels=self.root / item.name / "tables" / _LABELS,
            before=(f"{item.name}/tables",),
            annotated_train=learned,
            annotated_valid=measured,
            recipe_suffix=item.name,
            backbone=scale.backbone,
            device=scale.device,
            init=scale.init,
            init_stage="",
            gvf_weights=scale.gvf_weights,
            pretrain_options=tuple(options),
            localize_options=tuple(options_of(item.bmn)),
            untrimmed=scale.settings,
            stride_frames=item.stride_frames,
            workers=scale.extract_workers,
            protocol=item.name,
        )


def _annotated(annotations: Path, role: Role) -> Iterable[str]:
    """Names, without ``v_``, of the videos that play a part and have actions."""
    from tspcli.annotations import read_actions

    found = read_actions(annotations, role=role)
    return sorted(name.removeprefix("v_") for name, video in found.items() if video.segments)


def _at_hand(weights: str) -> bool:
    from tspcli.encoders.weights import find_weights

    return Path(weights).exists() or find_weights(weights).is_local
