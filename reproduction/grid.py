"""The stages of an experiment on rendered videos, cell by cell."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path

from reproduction import dataset
from reproduction.chain import TRIMMED, Chain, options_of
from reproduction.explore import explored_table, plain, variations
from reproduction.measures import FEATURES, MEASURES, RUN, single_frame_figures
from reproduction.outcome import SINGLE_FRAME, Group
from reproduction.scales import Cell, Scale
from reproduction.stages import Command, Stage, Tell
from reproduction.synthetic import MOTIONS
from tspcli.core.files import replacing

DATA, TABLES, TRIMMED_TABLES, CACHE = "data", "tables", "trimmed-tables", "cache"
LABELS = "action_label_mapping.json"
TABLE_FILES = ("train_groundtruth.csv", "valid_groundtruth.csv", LABELS)
WATCHED = "watched.csv"
"""The table of the few validation videos that trainings report on; nothing depends on them."""
N_WATCHED = 24


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
        stages = [stage for cell in self.scale.cells for stage in self._cell(cell)]
        if self.scale.explored:
            stages += GridPlan(plain(self.scale), self.root).stages()
            stages += variations(self.chain, self.scale)
        return stages

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

    def explored(self) -> list[list[str]]:
        """Header and rows of the exploratory table; empty if nothing is explored."""
        return explored_table(self.root, self.scale.explored)

    def _cell(self, cell: Cell) -> list[Stage]:
        chain = self.chain(cell)
        trimmed = self._trimmed_chain(cell, chain)
        return [
            self._render(cell),
            self._tables(cell, chain),
            self._trimmed_tables(cell),
            self._cache(cell, chain, trimmed),
            *(self._train_on_trimmed(cell, trimmed, name) for name in (TRIMMED, SINGLE_FRAME)),
            self._single_frame(cell, chain),
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
        check: Command = ("annotations", "check", "--train", str(chain.train))
        check += ("--valid", str(out / TABLE_FILES[1]), "--videos", str(videos))
        return Stage(
            self._stage_name(cell, TABLES),
            (convert, check),
            call=_write_watched,
            after=(self._stage_name(cell, DATA),),
            outputs=(*TABLE_FILES, WATCHED),
            settings={"watched": N_WATCHED},
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
            options += ["--workers", "0", "--channels-last"]
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
            valid=tables / WATCHED,
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
            gvf_rows=f"{TRIMMED}.features" if scale.device == "cpu" else "",
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

    def _single_frame(self, cell: Cell, chain: Chain) -> Stage:
        """What the scenes give away, in trimmed clips and in untrimmed videos."""
        name = self._stage_name(cell, f"{SINGLE_FRAME}.features")
        single, clips = (
            self.root / self._stage_name(cell, n) / RUN for n in (SINGLE_FRAME, TRIMMED)
        )
        annotations = self._data(cell) / dataset.ANNOTATIONS
        valid = replace(chain, folders=(self._data(cell) / dataset.VIDEOS / "valid",))
        store = self.root / name / FEATURES
        extract = valid.extract(str(single / "last.pth"), store, self.scale.stride_frames)

        def call(folder: Path, tell: Tell) -> None:
            single_frame_figures(folder, single, clips, annotations, len(MOTIONS))

        return Stage(
            name,
            ((*extract, "--clip-length", "1"),),
            call=call,
            after=tuple(self._stage_name(cell, n) for n in (DATA, TABLES, SINGLE_FRAME, TRIMMED)),
            outputs=(FEATURES, MEASURES),
            cost=10,
            about="what single frames give away",
        )


def _write_watched(folder: Path, tell: Tell) -> None:
    """The rows of the first validation videos by name: classes take turns in names."""
    with open(folder / TABLE_FILES[1], encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    watched = sorted({row["video-name"] for row in rows})[:N_WATCHED]
    with (
        replacing(folder / WATCHED) as aside,
        open(aside, "w", encoding="utf-8", newline="") as out,
    ):
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["video-name"] in watched)
