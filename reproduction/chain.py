"""The stages that every data set goes through: pretraining, features, localization, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reproduction.measures import FEATURES, MEASURES, RUN, measure, results_file
from reproduction.stages import Command, Stage, Tell

TRIMMED = "trimmed"
"""The encoder that all arms start from as it is, without any untrimmed video."""
GVF = "gvf"
GVF_ROWS = "rows.h5"
TAC_SHARE = 0.45
"""How long TAC takes compared with TSP: it trains on clips of actions alone."""


def options_of(values: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command."""
    words: list[str] = []
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


@dataclass(frozen=True)
class Arm:
    """One way to pretrain on untrimmed videos.

    Attributes:
        name: In folders and tables.
        title: For people.
        recipe: ``tac`` or ``tsp``.
        heads: What is learned; empty for what the recipe says.
        gvf: ``max``, ``mean`` or ``none``.
        clip_length: Frames per clip.
        settings: Values of the recipe to replace.
        is_control: Whether region labels are permuted within each video.
    """

    name: str
    title: str
    recipe: Literal["tac", "tsp"] = "tsp"
    heads: tuple[str, ...] = ()
    gvf: Literal["max", "mean", "none"] = "none"
    clip_length: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_control: bool = False


@dataclass(frozen=True)
class Chain:
    """How one data set is worked on with one seed.

    Attributes:
        root: The experiment's folder.
        prefix: In front of the names of this seed's stages, such as ``seed0/``.
        seed: Of all that chance decides.
        folders: Of the videos.
        train, valid, labels: Tables of training and validation, and the label mapping.
        before: Stages that make the tables and the cache.
        annotated_train, annotated_valid: What localization learns from and is measured against.
        subsets: Of the annotations that it is measured against; tables ignore them.
        recipe_suffix: ``activitynet`` or ``thumos14``.
        backbone, device: See :class:`reproduction.grid.Scale`.
        init: Where training on untrimmed videos starts from.
        init_stage: The stage that makes ``init``; empty if it is at hand.
        gvf_weights: The encoder of the global features, likewise from ``init_stage``.
        gvf_rows: The stage with that encoder's features; empty if they are yet to be computed.
        pretrain_options, localize_options: Further options of these commands, as words.
        untrimmed: Settings of the recipe to replace.
        stride_frames, gvf_stride_frames: From feature to feature.
        workers: Decode processes of an extraction; 0 lets the program choose.
        protocol: Of ``tsp localize evaluate``.
    """

    root: Path
    prefix: str
    seed: int
    folders: tuple[Path, ...]
    train: Path
    valid: Path
    labels: Path
    before: tuple[str, ...]
    annotated_train: Path
    annotated_valid: Path
    recipe_suffix: str
    backbone: str
    device: str
    init: str
    init_stage: str
    gvf_weights: str
    gvf_rows: str = ""
    pretrain_options: tuple[str, ...] = ()
    localize_options: tuple[str, ...] = ()
    untrimmed: Mapping[str, Any] = field(default_factory=dict)
    stride_frames: int = 16
    gvf_stride_frames: int = 16
    workers: int = 0
    protocol: str = "activitynet"
    subsets: tuple[str, ...] = ("validation",)

    def stages(self, arms: Sequence[Arm]) -> list[Stage]:
        """Global features, all trainings, and localization with each encoder's features."""
        # The longest first, so that nothing waits for one long stage at the end.
        ordered = sorted(arms, key=lambda arm: -arm.clip_length)
        stages = [self.extract_stage(TRIMMED), self._gvf()]
        stages += [self.pretrain_stage(arm) for arm in ordered]
        for name in (TRIMMED, *(arm.name for arm in ordered)):
            stages += [self.extract_stage(name)] if name != TRIMMED else []
            stages.append(self.localize_stage(name))
        return stages

    def folder(self, name: str) -> Path:
        """Where a stage of this seed lies."""
        return self.root / (self.prefix + name)

    @property
    def _from_init(self) -> tuple[str, ...]:
        return (self.init_stage,) if self.init_stage else ()

    @property
    def _sources(self) -> tuple[str, ...]:
        return (*self.before, *self._from_init)

    def _videos(self) -> list[str]:
        return [word for folder in self.folders for word in ("--videos", str(folder))]

    def pretrain(self, recipe: str, out: Path) -> list[str]:
        """What all trainings have in common."""
        words = ["pretrain", *self._videos(), "--out", str(out), "--recipe", recipe]
        words += ["--train", str(self.train), "--valid", str(self.valid)]
        words += ["--labels", str(self.labels), "--backbone", self.backbone]
        return [*words, "--device", self.device, "--seed", str(self.seed), *self.pretrain_options]

    def extract(self, weights: str, out: Path, stride_frames: int) -> Command:
        """Features of the videos."""
        words = ["extract", *self._videos(), "--weights", weights, "--out", str(out)]
        words += ["--stride", str(stride_frames), "--device", self.device]
        return (*words, *(("--workers", str(self.workers)) if self.workers else ()))

    def _gvf(self) -> Stage:
        folder = self.folder(GVF)
        rows = self.folder(self.gvf_rows) / FEATURES if self.gvf_rows else folder / GVF_ROWS
        extract = self.extract(self.gvf_weights, rows, self.gvf_stride_frames)
        pools = tuple(
            ("gvf", "--features", str(rows), "--pool", pool, "--out", str(folder / f"{pool}.h5"))
            for pool in ("max", "mean")
        )
        return Stage(
            self.prefix + GVF,
            pools if self.gvf_rows else (extract, *pools),
            after=(self.prefix + self.gvf_rows,) if self.gvf_rows else self._sources,
            outputs=("max.h5", "mean.h5"),
            cost=1 if self.gvf_rows else 25,
            about="global video features",
        )

    def pretrain_stage(self, arm: Arm) -> Stage:
        """Training one arm."""
        run = self.folder(arm.name) / RUN
        words = self.pretrain(f"{arm.recipe}-{self.recipe_suffix}", run)
        if arm.is_control:
            words = ["-m", "reproduction.permuted", *words]
        words += ["--init", self.init, "--clip-length", str(arm.clip_length)]
        words += options_of({**self.untrimmed, **arm.settings})
        if arm.heads:
            words += ["--heads", ",".join(arm.heads)]
        after = [*self._sources]
        if arm.recipe == "tsp":
            words += ["--gvf-pool", arm.gvf]
        if arm.gvf != "none":
            words += ["--gvf", str(self.folder(GVF) / f"{arm.gvf}.h5")]
            words += ["--gvf-weights", self.gvf_weights]
            after.append(self.prefix + GVF)
        share = TAC_SHARE if arm.recipe == "tac" else 1.0
        return Stage(
            self.prefix + arm.name,
            (tuple(words),),
            after=tuple(after),
            outputs=(f"{RUN}/last.pth", f"{RUN}/results.jsonl"),
            cost=110 * share * arm.clip_length / 16,
            about=f"pretrain: {arm.title}",
        )

    def _weights_of(self, name: str) -> tuple[str, tuple[str, ...]]:
        """An encoder, and the stage that makes it; none is chosen on validation videos."""
        if name == TRIMMED:
            return self.gvf_weights, self._from_init
        return str(self.folder(name) / RUN / "last.pth"), (self.prefix + name,)

    def extract_stage(self, name: str) -> Stage:
        """Features of all videos by one encoder."""
        weights, source = self._weights_of(name)
        store = self.folder(f"{name}.features") / FEATURES
        return Stage(
            f"{self.prefix}{name}.features",
            (self.extract(weights, store, self.stride_frames),),
            after=(*self.before, *source),
            outputs=(FEATURES,),
            cost=80,
            about=f"features: {name}",
        )

    def localize_stage(self, name: str, *, suffix: str = "") -> Stage:
        """What a localizer finds with an encoder's features, and all figures of it.

        Args:
            name: Of the encoder.
            suffix: Of the result's name, where one encoder has several localizers.
        """
        weights, source = self._weights_of(name)
        features, stage = f"{name}.features", f"{name}{suffix}.localized"
        folder, store = self.folder(stage), self.folder(features) / FEATURES
        network = folder / RUN
        device = ("--device", self.device)

        def call(out: Path, tell: Tell) -> None:
            measure(out, store, weights, self.annotated_valid, self.subsets, self.protocol)

        train: Command = ("localize", "train", "--features", str(store), "--out", str(network))
        train += ("--annotations", str(self.annotated_train), "--seed", str(self.seed), *device)
        predictions: list[Command] = []
        for subset in self.subsets:
            words: Command = ("localize", "predict", "--run", str(network), "--subset", subset)
            words += ("--features", str(store), "--annotations", str(self.annotated_valid))
            predictions.append((*words, "--out", str(folder / results_file(subset)), *device))
        return Stage(
            self.prefix + stage,
            ((*train, *self.localize_options), *predictions),
            call=call,
            after=(*self.before, *source, self.prefix + features),
            outputs=(MEASURES, *map(results_file, self.subsets), f"{RUN}/log.json"),
            cost=35,
            about=f"localize: {name}{suffix}",
        )
