"""The stages of the experiment on rendered videos, from frames to figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from reproduction import dataset
from reproduction.chain import Chain
from reproduction.measures import RUN
from reproduction.outcome import TSP, Group
from reproduction.published import PUBLISHED_ACTIVITYNET, PUBLISHED_NOTE
from reproduction.scales import TRIMMED, Scale, clip_lengths, options_of
from reproduction.stages import Command, Stage, Tell

DATA, TABLES, TRIMMED_TABLES, CACHE = "data", "tables", "trimmed-tables", "cache"
LABELS = "action_label_mapping.json"
TABLE_FILES = ("train_groundtruth.csv", "valid_groundtruth.csv", LABELS)


def seed_stage(seed: int, name: str) -> str:
    """The name of a stage that belongs to one seed."""
    return f"seed{seed}/{name}"


class ExperimentPlan:
    """Lists the stages of an experiment.

    Args:
        scale: How large.
        root: The experiment's folder.
        seeds: Of the trainings; the data set is one.
    """

    def __init__(self, scale: Scale, root: Path, seeds: Sequence[int]) -> None:
        self.scale, self.root, self.seeds = scale, root, tuple(seeds)
        self.videos = root / DATA / dataset.VIDEOS
        self.trimmed = root / DATA / dataset.TRIMMED
        self.annotations = root / DATA / dataset.ANNOTATIONS

    def stages(self) -> list[Stage]:
        """All stages; those that a stage reads stand before it."""
        shared = [self._render(), self._tables(), self._trimmed_tables(), self._cache()]
        return shared + [stage for seed in self.seeds for stage in self._seed(seed)]

    def groups(self) -> list[Group]:
        """What the report shows."""
        titles = {TRIMMED: "trimmed clips alone"}
        titles.update({variant.name: variant.title for variant in self.scale.variants})
        return [
            Group(
                "Rendered videos",
                self.root,
                seed_stage,
                self.seeds,
                titles,
                clip_lengths(self.scale.variants),
                self.annotations,
                published={TSP: PUBLISHED_ACTIVITYNET},
                published_note=PUBLISHED_NOTE + " Real videos, 200 classes, another localizer: "
                "shown for the order of magnitude alone.",
            )
        ]

    def remarks(self) -> list[str]:
        """What a reader has to know beside the tables."""
        return [
            "Videos that the program renders, a small encoder, a BMN on each encoder's features. "
            "The design of the data set was written before any figure was seen "
            "(docs/reproduction.md)."
        ]

    def _render(self) -> Stage:
        spec, jobs = self.scale.data, self.scale.jobs * self.scale.threads

        def call(folder: Path, tell: Tell) -> None:
            dataset.render_experiment(
                spec,
                folder,
                processes=jobs,
                on_video=lambda done, total: tell(f"{done} of {total} videos"),
            )

        return Stage(
            DATA,
            call=call,
            outputs=(dataset.VIDEOS, dataset.TRIMMED, dataset.ANNOTATIONS, dataset.TRIMMED_TABLE),
            settings=asdict(spec),
            cost=40,
            about="render the videos",
        )

    def _tables(self) -> Stage:
        out = self.root / TABLES
        chain = self._chain(0)
        convert: Command = ("annotations", "activitynet", str(self.annotations), "--out", str(out))
        convert += ("--videos", str(self.videos / "train"))
        convert += ("--videos", str(self.videos / "valid"))
        convert += ("--min-gap", f"{self.scale.min_gap_s:.6f}")
        check = ("annotations", "check", "--train", str(chain.train), "--valid", str(chain.valid))
        return Stage(
            TABLES,
            (convert, (*check, "--videos", str(self.videos))),
            after=(DATA,),
            outputs=TABLE_FILES,
            cost=3,
            about="annotations to tables",
        )

    def _trimmed_tables(self) -> Stage:
        table, out = self.root / DATA / dataset.TRIMMED_TABLE, self.root / TRIMMED_TABLES
        convert: Command = ("annotations", "csv", str(table), "--out", str(out))
        convert += ("--videos", f"train={self.trimmed / 'train'}")
        convert += ("--videos", f"valid={self.trimmed / 'valid'}")
        return Stage(
            TRIMMED_TABLES,
            (convert,),
            after=(DATA,),
            outputs=TABLE_FILES,
            cost=3,
            about="annotations of the trimmed clips to tables",
        )

    def _cache(self) -> Stage:
        chain, unused = self._chain(0), self.root / CACHE / "none"
        commands = tuple(
            (*each.pretrain("tac-activitynet", unused), "--cache-only")
            for each in (chain, self._trimmed_chain(chain))
        )
        return Stage(
            CACHE,
            commands,
            after=(DATA, TABLES, TRIMMED_TABLES),
            cost=30,
            about="decode all videos once",
        )

    def _chain(self, seed: int) -> Chain:
        scale = self.scale
        # The codec is named, so that results do not change when the default does.
        options = ["--cache", str(self.root / CACHE / "clips"), "--cache-codec", "jpeg"]
        if scale.jobs > 1:
            options += ["--workers", "0"]
        for name in ("resize", "crop"):
            if size := getattr(scale, name):
                options += [f"--{name}", ",".join(map(str, size))]
        trimmed_run = self.root / seed_stage(seed, TRIMMED) / RUN
        return Chain(
            root=self.root,
            prefix=seed_stage(seed, ""),
            seed=seed,
            folders=(self.videos,),
            train=self.root / TABLES / TABLE_FILES[0],
            valid=self.root / TABLES / TABLE_FILES[1],
            labels=self.root / TABLES / LABELS,
            before=(DATA, TABLES, CACHE),
            annotated_train=self.annotations,
            annotated_valid=self.annotations,
            recipe_suffix="activitynet",
            backbone=scale.backbone,
            device=scale.device,
            init=str(trimmed_run / "best.pth"),
            init_stage=seed_stage(seed, TRIMMED),
            gvf_weights=str(trimmed_run / "best.pth"),
            pretrain_options=tuple(options),
            localize_options=tuple(options_of(scale.bmn)),
            untrimmed=scale.untrimmed,
            stride_frames=scale.stride_frames,
            gvf_stride_frames=scale.gvf_stride_frames,
            workers=scale.threads,
        )

    def _trimmed_chain(self, chain: Chain) -> Chain:
        """The same on the trimmed clips."""
        tables = self.root / TRIMMED_TABLES
        train, valid, labels = (tables / name for name in TABLE_FILES)
        return replace(chain, folders=(self.trimmed,), train=train, valid=valid, labels=labels)

    def _seed(self, seed: int) -> list[Stage]:
        name, chain = seed_stage(seed, TRIMMED), self._chain(seed)
        words = self._trimmed_chain(chain).pretrain("tac-activitynet", self.root / name / RUN)
        trimmed = Stage(
            name,
            ((*words, "--init", "random", *options_of(self.scale.trimmed)),),
            after=(TRIMMED_TABLES, CACHE),
            outputs=(f"{RUN}/best.pth", f"{RUN}/results.jsonl"),
            cost=150,
            about="train on trimmed clips",
        )
        return [trimmed, *chain.stages(self.scale.variants)]
