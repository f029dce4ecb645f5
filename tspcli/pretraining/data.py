"""The data of a run, checked before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tspcli.annotations import GroundTruthRow, read_groundtruth, read_label_mapping
from tspcli.annotations.check import check_groundtruth
from tspcli.core.problems import Problems
from tspcli.core.progress import Reporter
from tspcli.core.text import counted
from tspcli.encoders.backbones import BackboneSpec, backbone_spec
from tspcli.encoders.loading import describe_weights
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.clip_cache import CachedClips, CacheSettings, cache_file
from tspcli.pretraining.clip_cache_file import VideoClips
from tspcli.pretraining.distributed import Devices
from tspcli.pretraining.epoch_plan import BatchPlan, ClipPlan, ValidationPlan
from tspcli.pretraining.gvf_lookup import check_gvf, gvf_rows
from tspcli.pretraining.loader import ClipLoader
from tspcli.pretraining.training_recipe import PRETRAINED, RANDOM, Execution, Recipe
from tspcli.pretraining.training_segments import TrainingSegments, build_segments, find_videos
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec
from tspcli.store.gvf import GlobalFeatures


@dataclass(frozen=True)
class RunInputs:
    """The files that a run is given.

    Attributes:
        videos: Folders, searched with their subfolders.
        train, valid: Ground-truth tables.
        labels: Label mapping; None takes the sorted classes of the training table.
        gvf: Global video features, if the recipe wants them.
    """

    videos: tuple[Path, ...]
    train: Path
    valid: Path
    labels: Path | None = None
    gvf: Path | None = None


@dataclass(frozen=True)
class RunContext:
    """What every part of a run works with.

    Attributes:
        inputs: The files.
        recipe: What is learned.
        execution: How it is computed.
        devices: The processes that train together.
        reporter: Receives the progress, on the first process.
    """

    inputs: RunInputs
    recipe: Recipe
    execution: Execution
    devices: Devices
    reporter: Reporter


@dataclass
class RunData:
    """What training and validation see.

    Attributes:
        labels: Class names, index = class id.
        sampling, preprocessing: Of the clips.
        plans: The clips of ``train`` and ``valid``.
        videos: The files of each, in the order of its table.
        gvf: One row per video of each, or None.
        gvf_dim: Width of the global features; 0 without.
        chance: Chance levels of the heads on the validation clips.
        notes: What is worth reporting.
    """

    labels: list[str]
    sampling: Sampling
    preprocessing: Preprocessing
    plans: dict[str, ClipPlan]
    videos: dict[str, list[Path]]
    gvf: dict[str, npt.NDArray[np.float32] | None]
    gvf_dim: int
    chance: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def batches(self, recipe: Recipe, devices: Devices) -> BatchPlan:
        """This device's share of an epoch of training."""
        plan = self.plans["train"]
        return BatchPlan(plan, recipe.batch_size, devices.rank, devices.world_size)

    def validation(self, recipe: Recipe, devices: Devices) -> ValidationPlan:
        """This device's share of a validation."""
        plan = self.plans["valid"]
        return ValidationPlan(plan, recipe.batch_size, devices.rank, devices.world_size)

    def digest(self) -> str:
        """sha256 over everything that decides on what the model sees."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for name, plan in self.plans.items():
            digest.update(plan.table.digest().encode())
            rows = self.gvf[name]
            if rows is not None:
                digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()

    def duration_s(self, videos: Iterable[Path]) -> float:
        """Seconds of video in some files, as the tables have it."""
        durations: dict[Path, float] = {}
        for name, plan in self.plans.items():
            table = plan.table
            for video, duration_s in zip(table.video, table.duration_s, strict=True):
                durations[self.videos[name][video]] = float(duration_s)
        return sum(durations[path] for path in videos)

    def without(self, names: Collection[str]) -> RunData:
        """The same without some videos.

        Raises:
            TrainingError: If a split has no segment then.
        """
        if not names:
            return self
        plans, videos, gvf = {}, {}, {}
        for split, plan in self.plans.items():
            rows = self.gvf[split]
            kept = [i for i, name in enumerate(plan.table.filenames) if name not in names]
            plans[split] = replace(plan, table=plan.table.without(names))
            videos[split] = [self.videos[split][i] for i in kept]
            gvf[split] = None if rows is None else rows[kept]
            if not kept:
                raise TrainingError(
                    f"No readable videos are left in the {split} split.",
                    remedy="Check the videos, and that their decoder is installed: `tsp doctor`.",
                )
        return replace(self, plans=plans, videos=videos, gvf=gvf)

    def require_gvf(self) -> None:
        """See that the global features of all videos are there, if there are any.

        Raises:
            TrainingError: If one is missing or not finite, with how many.
        """
        for split, rows in self.gvf.items():
            if rows is None:
                continue
            names = self.plans[split].table.filenames
            missing = [names[i] for i in np.flatnonzero(~np.isfinite(rows).all(axis=1))]
            if missing:
                raise TrainingError(
                    f"Global features are missing or not finite for {len(missing)} of "
                    f"{counted(len(names), 'video')}, such as {missing[0]}.",
                    remedy="Make them from all videos of the tables with `tsp gvf`.",
                    option="gvf",
                    missing=missing,
                )

    def cache_settings(self, execution: Execution) -> CacheSettings:
        """Of the clip cache that serves these clips."""
        spec = self.preprocessing.training_spec()
        return CacheSettings(self.sampling, spec, execution.cache_codec)

    def reader(self, videos: Sequence[Path], execution: Execution) -> CachedClips | VideoClips:
        """A reader of clips of some videos, from the cache if there is one."""
        if execution.cache:
            files = [cache_file(Path(execution.cache), path) for path in videos]
            return CachedClips(files, self.sampling.clip_length)
        spec = self.preprocessing.training_spec()
        return VideoClips(videos, self.sampling, spec, execution.decoder)

    def loader(self, split: str, execution: Execution) -> ClipLoader:
        """A loader of one split's clips."""
        return ClipLoader(
            self.plans[split],
            self.reader(self.videos[split], execution),
            self.preprocessing,
            self.gvf[split],
            skip=execution.on_unreadable == "skip",
        )


def load_data(
    inputs: RunInputs, recipe: Recipe, preprocessing: Preprocessing | None = None
) -> RunData:
    """Read and check the tables, the videos' places and the global features.

    Args:
        inputs: The files.
        recipe: What is learned.
        preprocessing: Of the frames, unless the recipe names sizes; by default that of the initial
            weights.

    Raises:
        AnnotationError, TrainingError, StoreError, UsageError: If they do not fit together; a
            TrainingError with all ``problems`` if there are several.
    """
    spec = backbone_spec(recipe.backbone)
    problems = Problems(TrainingError)
    with problems.noted():
        spec.check_clip_length(recipe.clip_length)
    with problems.noted():
        preprocessing = frame_preprocessing(recipe, preprocessing or initial_input(recipe)[1])
    features: tuple[GlobalFeatures | None, list[str]] = (None, [])
    with problems.noted():
        features = check_gvf(inputs.gvf, recipe, spec)
    tables: dict[str, list[GroundTruthRow]] = {}
    for name in ("train", "valid"):
        with problems.noted():
            tables[name] = read_groundtruth(getattr(inputs, name))
    labels: list[str] | None = None
    with problems.noted():
        if inputs.labels is not None:
            labels = read_label_mapping(inputs.labels)
        elif "train" in tables:
            labels = sorted({row.label for row in tables["train"] if row.label is not None})
    segments: dict[str, TrainingSegments] = {}
    videos: dict[str, list[Path]] = {}
    for name, rows in tables.items() if labels is not None else ():
        with problems.noted():
            segments[name] = build_segments(
                rows,
                labels or [],
                clip_length=recipe.clip_length,
                frame_rate=float(recipe.rate),
                foreground_only=recipe.foreground_only,
                name=str(getattr(inputs, name)),
            )
            videos[name] = find_videos(segments[name].filenames, inputs.videos)
    problems.require_none()
    assert labels is not None and preprocessing is not None
    sampling = clip_sampling(recipe, spec)
    vectors, notes = features
    notes = list(notes)
    for name, table in segments.items():
        notes += _segment_notes(name, table)
    report = check_groundtruth(
        tables,
        labels=labels,
        min_segment_s=recipe.clip_duration_s,
        clips_per_segment=recipe.clips_per_segment,
    )
    notes += [f"{f.subset}: {f.message}" for f in report.findings if f.severity == "error"]
    return RunData(
        labels=labels,
        sampling=sampling,
        preprocessing=preprocessing,
        plans={
            name: ClipPlan(
                table, sampling, recipe.clips_per_segment, recipe.seed, training=name == "train"
            )
            for name, table in segments.items()
        },
        videos=videos,
        gvf={
            name: None if vectors is None else gvf_rows(table, vectors)
            for name, table in segments.items()
        },
        gvf_dim=0 if vectors is None else vectors.dim,
        chance={level.head: level.majority for level in report.chance["valid"]},
        notes=notes,
    )


def initial_input(recipe: Recipe) -> tuple[Sampling, Preprocessing]:
    """The clips and frames that the initial weights were made for; random ones: the backbone's.

    Raises:
        WeightsError, CheckpointError: If there are no such weights.
        TrainingError: If they are those of another backbone.
    """
    if recipe.init in (PRETRAINED, RANDOM):
        spec = backbone_spec(recipe.backbone)
        return spec.sampling, spec.preprocessing
    made = describe_weights(recipe.init, recipe.backbone)
    if made.backbone != recipe.backbone:
        raise TrainingError(
            f"The initial weights {recipe.init} are those of a {made.backbone}, not of a "
            f"{recipe.backbone}.",
            remedy="Leave --backbone out, or give weights of it.",
            option="backbone",
            value=made.backbone,
        )
    return made.sampling, made.preprocessing


def clip_sampling(recipe: Recipe, spec: BackboneSpec) -> Sampling:
    """The sampling of a recipe's clips.

    Videos are standardised to 30 frames a second first, as in the official recipe; at rates that 30
    is no multiple of, and with backbones that are used to it, they are sampled directly.
    """
    own = spec.sampling
    grid = own.grid_rate
    if own.grid_rate == own.frame_rate or (grid / recipe.rate).denominator != 1:
        grid = recipe.rate
    return Sampling(
        frame_rate=recipe.rate,
        clip_length=recipe.clip_length,
        stride=recipe.clip_length,
        grid_rate=grid,
    )


def frame_preprocessing(recipe: Recipe, own: Preprocessing) -> Preprocessing:
    """The preprocessing of the initial weights, with the recipe's sizes where it names any."""
    resize = own.resize
    if recipe.resize:
        resize = ResizeSpec(height=recipe.resize[0], width=recipe.resize[1])
    crop = (recipe.crop[0], recipe.crop[1]) if recipe.crop else own.crop
    # Where the other side follows the video's shape, either may be the short one.
    frame = (resize.height or resize.short_side or 0, resize.width or resize.short_side or 0)
    if crop[0] > frame[0] or crop[1] > frame[1]:
        raise UsageError(
            f"A crop of {crop[0]} x {crop[1]} does not fit into frames that are scaled to "
            f"{frame[0]} x {frame[1]}.",
            remedy="Give a smaller --crop or a larger --resize, both height,width.",
        )
    return Preprocessing(resize=resize, crop=crop, mean=own.mean, std=own.std)


def _segment_notes(name: str, table: TrainingSegments) -> list[str]:
    if not table.n_short:
        return []
    share = 100 * table.n_short / table.n_rows
    return [
        f"{name}: left out {table.n_short} of {counted(table.n_rows, 'segment')} ({share:.2f} %) "
        "that are shorter than one clip."
    ]
