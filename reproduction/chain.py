"""The stages that every data set goes through: pretraining, features, localization, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.measures import FEATURES, MEASURES, RESULTS, RUN, measure
from reproduction.scales import TAC_SHARE, TRIMMED, Variant, options_of
from reproduction.stages import STDOUT_FILE, Command, Stage, Tell
from tspcli.localization.results import proposals_path

GVF = "gvf"
GVF_ROWS = "rows.h5"
SUBSET = "validation"
"""Of annotations that tell subsets; tables ignore it."""


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
        recipe_suffix: ``activitynet`` or ``thumos14``.
        backbone, device: See :class:`reproduction.scales.Scale`.
        init: Where training on untrimmed videos starts from.
        init_stage: The stage that makes ``init``; empty if it is at hand.
        gvf_weights: The encoder of the global features, likewise from ``init_stage``.
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
    pretrain_options: tuple[str, ...] = ()
    localize_options: tuple[str, ...] = ()
    untrimmed: Mapping[str, Any] = field(default_factory=dict)
    stride_frames: int = 16
    gvf_stride_frames: int = 16
    workers: int = 0
    protocol: str = "activitynet"

    def stages(self, variants: tuple[Variant, ...]) -> list[Stage]:
        """Global features, all trainings, and localization with each encoder's features."""
        # The longest first, so that nothing waits for one long stage at the end.
        ordered = sorted(variants, key=lambda variant: -variant.clip_length)
        stages = [self._gvf(), *(self._variant(variant) for variant in ordered)]
        for name in (TRIMMED, *(variant.name for variant in ordered)):
            stages += self._localize(name)
        return stages

    def folder(self, name: str) -> Path:
        """Where a stage of this seed lies."""
        return self.root / (self.prefix + name)

    @property
    def _from_init(self) -> tuple[str, ...]:
        return (self.init_stage,) if self.init_stage else ()

    def _videos(self) -> list[str]:
        return [word for folder in self.folders for word in ("--videos", str(folder))]

    def pretrain(self, recipe: str, out: Path) -> list[str]:
        """What all trainings have in common."""
        words = ["pretrain", *self._videos(), "--out", str(out), "--recipe", recipe]
        words += ["--train", str(self.train), "--valid", str(self.valid)]
        words += ["--labels", str(self.labels), "--backbone", self.backbone]
        return [*words, "--device", self.device, "--seed", str(self.seed), *self.pretrain_options]

    def _extract(self, weights: str, out: Path, stride_frames: int) -> Command:
        words = ["extract", *self._videos(), "--weights", weights, "--out", str(out)]
        words += ["--stride", str(stride_frames), "--device", self.device]
        return (*words, *(("--workers", str(self.workers)) if self.workers else ()))

    def _gvf(self) -> Stage:
        folder = self.folder(GVF)
        rows = folder / GVF_ROWS
        pools = tuple(
            ("gvf", "--features", str(rows), "--pool", pool, "--out", str(folder / f"{pool}.h5"))
            for pool in ("max", "mean")
        )
        return Stage(
            self.prefix + GVF,
            (self._extract(self.gvf_weights, rows, self.gvf_stride_frames), *pools),
            after=(*self.before, *self._from_init),
            outputs=("max.h5", "mean.h5"),
            cost=25,
            about="global video features",
        )

    def _variant(self, variant: Variant) -> Stage:
        run = self.folder(variant.name) / RUN
        words = self.pretrain(f"{variant.recipe}-{self.recipe_suffix}", run)
        words += ["--init", self.init, "--heads", ",".join(variant.heads)]
        words += ["--clip-length", str(variant.clip_length), *options_of(self.untrimmed)]
        after = [*self.before, *self._from_init]
        if variant.recipe == "tsp":
            words += ["--gvf-pool", variant.gvf]
        if variant.gvf != "none":
            words += ["--gvf", str(self.folder(GVF) / f"{variant.gvf}.h5")]
            words += ["--gvf-weights", self.gvf_weights]
            after.append(self.prefix + GVF)
        share = TAC_SHARE if variant.recipe == "tac" else 1.0
        return Stage(
            self.prefix + variant.name,
            (tuple(words),),
            after=tuple(after),
            outputs=(f"{RUN}/best.pth", f"{RUN}/results.jsonl"),
            cost=110 * share * variant.clip_length / 16,
            about=f"pretrain: {variant.title}",
        )

    def _localize(self, name: str) -> list[Stage]:
        """Features of an encoder, and what a localizer finds with them."""
        source = self._from_init if name == TRIMMED else (self.prefix + name,)
        run = self.folder(name) / RUN
        weights = self.gvf_weights if name == TRIMMED else str(run)
        features, bmn = f"{name}.features", f"{name}.bmn"
        folder, store = self.folder(bmn), self.folder(features) / FEATURES
        results, network = str(folder / RESULTS), str(folder / RUN)
        proposals = proposals_path(results)
        device = ("--device", self.device)

        def call(out: Path, tell: Tell) -> None:
            evaluation = folder / STDOUT_FILE
            measure(store, self.annotated_valid, run, evaluation, out / MEASURES, subset=SUBSET)

        train: Command = ("localize", "train", "--features", str(store), "--out", network)
        train += ("--annotations", str(self.annotated_train), "--seed", str(self.seed), *device)
        predict: Command = ("localize", "predict", "--run", network, "--features", str(store))
        predict += ("--annotations", str(self.annotated_valid), "--subset", SUBSET)
        evaluate: Command = ("localize", "evaluate", "--results", results, "--json")
        evaluate += ("--proposals", str(proposals))
        evaluate += ("--annotations", str(self.annotated_valid), "--protocol", self.protocol)
        return [
            Stage(
                self.prefix + features,
                (self._extract(weights, store, self.stride_frames),),
                after=(*self.before, *source),
                outputs=(FEATURES,),
                cost=40,
                about=f"features: {name}",
            ),
            Stage(
                self.prefix + bmn,
                (
                    (*train, *self.localize_options),
                    (*predict, "--out", results, *device),
                    evaluate,
                ),
                after=(*self.before, self.prefix + features),
                outputs=(STDOUT_FILE, RESULTS, proposals.name, f"{RUN}/log.json"),
                cost=30,
                about=f"localize: {name}",
            ),
            Stage(
                self.prefix + f"{name}.measures",
                call=call,
                after=(*self.before, *source, self.prefix + features, self.prefix + bmn),
                outputs=(MEASURES,),
                cost=1,
                about=f"measure: {name}",
            ),
        ]
