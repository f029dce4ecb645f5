"""Recipes: what is learned and how, as data that an option or a TOML file overrides.

A recipe decides on the result. How a machine computes it (precision, workers, cache) stands apart,
in :class:`Execution`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from tspcli.core.settings import Settings, with_values
from tspcli.errors import TspError, UsageError
from tspcli.recipes.catalog import read_recipe
from tspcli.sampling.spec import as_rate

DEFAULT_RECIPE = "tsp-activitynet"
PRETRAINED = "pretrained"
RANDOM = "random"
Head = Literal["action", "region"]
HEADS: tuple[Head, ...] = get_args(Head)
MAX_SEED = 2**64 - 1
_MANY = 1_000_000
_HUGE = 1e30
"""Far beyond use, and still far within the range of float32."""
_Count = Annotated[int, Meta(ge=1, le=_MANY)]
_Weight = Annotated[float, Meta(ge=0, le=_HUGE)]
_Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Recipe(Settings):
    """Everything on which the trained weights depend, besides the data."""

    name: Annotated[str, Meta(description="Name of the recipe that this one started from.")] = (
        "custom"
    )
    backbone: Annotated[
        str, Meta(description="A registered backbone; with --init that of the weights.")
    ] = "r2plus1d_34"
    init: Annotated[
        str,
        Meta(
            description="Weights to start from: pretrained (the backbone's Kinetics weights), a "
            "name in the registry, a checkpoint, a run directory, or random."
        ),
    ] = PRETRAINED
    heads: Annotated[
        tuple[Head, ...],
        Meta(
            min_length=1,
            description="action, region or both; the action head alone is TAC, both are TSP.",
        ),
    ] = HEADS
    gvf_pool: Annotated[
        Literal["max", "mean", "none"],
        Meta(description="How the global video feature was pooled, or none to do without one."),
    ] = "none"
    gvf_weights: Annotated[
        str,
        Meta(
            description="The encoder that the global video features must come from: a name in the "
            "registry, a checkpoint or a run directory."
        ),
    ] = ""
    foreground_only: Annotated[bool, Meta(description="Leave out background clips (TAC).")] = False
    action_alpha: Annotated[_Weight, Meta(description="Weight of the action head's loss.")] = 1.0
    region_alpha: Annotated[_Weight, Meta(description="Weight of the region head's loss.")] = 1.0
    clip_length: Annotated[_Count, Meta(description="Frames per clip.")] = 16
    frame_rate: Annotated[
        str, Meta(description="Frames per second inside a clip, as a decimal or a ratio.")
    ] = "15"
    clips_per_segment: Annotated[
        _Count, Meta(description="Clips drawn from each segment per epoch.")
    ] = 5
    resize: Annotated[
        tuple[_Count, ...],
        Meta(
            description="Height and width of frames before the crop; the initial weights' by "
            "default."
        ),
    ] = ()
    crop: Annotated[
        tuple[_Count, ...],
        Meta(description="Height and width of the crop; the initial weights' by default."),
    ] = ()
    epochs: Annotated[_Count, Meta(description="Passes over the segments.")] = 8
    batch_size: Annotated[_Count, Meta(description="Clips per step on each device.")] = 32
    stem_lr: Annotated[_Weight, Meta(description="Learning rate of the stem.")] = 0.0
    backbone_lr: Annotated[
        _Weight, Meta(description="Learning rate of the backbone's other layers.")
    ] = 1e-4
    head_lr: Annotated[_Weight, Meta(description="Learning rate of the heads.")] = 2e-3
    scale_lr_by_world_size: Annotated[
        bool, Meta(description="Multiply the learning rates by the number of devices.")
    ] = True
    momentum: Annotated[float, Meta(ge=0, le=0.9999, description="Momentum of SGD.")] = 0.9
    weight_decay: Annotated[_Weight, Meta(description="Weight decay of SGD.")] = 0.005
    warmup_epochs: Annotated[
        int,
        Meta(
            ge=0,
            le=_MANY,
            description="Epochs in which the learning rates rise linearly to their full values.",
        ),
    ] = 2
    warmup_factor: Annotated[
        _Share, Meta(description="What share of their full values the learning rates start at.")
    ] = 1e-5
    milestones: Annotated[
        tuple[_Count, ...],
        Meta(description="Epochs from which the learning rates are multiplied by gamma."),
    ] = (4, 6)
    gamma: Annotated[
        _Share, Meta(description="What the learning rates are multiplied by at each milestone.")
    ] = 0.01
    batch_norm: Annotated[
        Literal["train", "frozen", "sync"],
        Meta(
            description="Batch norms: train (statistics of each device's batch), sync (of all "
            "devices' batch) or frozen (neither statistics nor scales change)."
        ),
    ] = "train"
    seed: Annotated[int, Meta(ge=0, description="Seed of everything random.")] = 42

    def __post_init__(self) -> None:
        super().__post_init__()
        as_rate(self.frame_rate, "frame rate")
        if self.seed > MAX_SEED:
            raise UsageError(
                f"seed is {self.seed}; it must be at most {MAX_SEED}.",
                option="seed",
                value=self.seed,
            )
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value and len(value) != 2:
                raise UsageError(
                    f"{name} is {value}; it must be a height and a width.", option=name, value=value
                )
        if self.gvf_pool != "none" and "region" not in self.heads:
            raise UsageError(
                f"A {self.gvf_pool} GVF needs the region head, but there is only the action head.",
                remedy="Set gvf_pool to none, or add the region head.",
                option="gvf_pool",
            )
        if self.foreground_only and "region" in self.heads:
            raise UsageError(
                "The region head cannot learn from clips of actions alone.",
                remedy="Set foreground_only to false, or train the action head alone.",
                option="foreground_only",
            )
        if list(self.milestones) != sorted(self.milestones):
            raise UsageError(
                f"milestones are {self.milestones}; they must be in ascending order.",
                option="milestones",
                value=self.milestones,
            )

    @property
    def rate(self) -> Fraction:
        """Frames a second inside a clip."""
        return as_rate(self.frame_rate, "frame rate")

    @property
    def alphas(self) -> dict[str, float]:
        """The weight of each loss by its name."""
        return {
            name.removesuffix("_alpha"): value
            for name, value in vars(self).items()
            if name.endswith("_alpha")
        }

    @property
    def clip_duration_s(self) -> float:
        """Seconds that a clip covers, as the official code computes it."""
        return self.clip_length / float(self.rate)


@dataclass(frozen=True)
class Execution(Settings):
    """How a machine computes a run.

    The result depends on it by rounding alone, unless videos are skipped.
    """

    device: Annotated[str, Meta(description="auto, cpu, cuda, cuda:1, …")] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "tf32", "bf16"],
        Meta(description="Arithmetic; auto is bf16 on devices that have it, otherwise fp32."),
    ] = "auto"
    accumulate: Annotated[
        _Count, Meta(description="Pieces into which each batch is cut to save memory.")
    ] = 1
    compile: Annotated[bool, Meta(description="Use torch.compile.")] = False
    channels_last: Annotated[
        bool | None,
        Meta(description="Keep activations in channels_last_3d order; by default on CUDA devices."),
    ] = None
    checkpoint_activations: Annotated[
        bool, Meta(description="Compute activations twice to save memory.")
    ] = False
    workers: Annotated[
        int,
        Meta(
            ge=-1,
            le=_MANY,
            description="Loader processes of each device; -1 chooses, 0 reads in the training "
            "process.",
        ),
    ] = -1
    decoder: Annotated[
        str, Meta(description="auto or a decoder's name, for reading straight from videos.")
    ] = "auto"
    on_unreadable: Annotated[
        Literal["stop", "skip"],
        Meta(
            description="What to do about video that cannot be read. stop names it and ends. skip "
            "leaves out videos that fail before training, replaces a clip that fails in training "
            "by another of its class, leaves it out in validation, and counts them all."
        ),
    ] = "stop"
    cache: Annotated[
        str, Meta(description="Folder of the clip cache; empty to read straight from videos.")
    ] = ""
    cache_codec: Annotated[
        Literal["raw", "webp", "jpeg"],
        Meta(
            description="How the cache stores frames: raw (exact, fastest), webp (exact, a third "
            "of the size, slow), jpeg (a fifth of the size, not exact)."
        ),
    ] = "raw"
    checkpoint_every_s: Annotated[
        _Weight,
        Meta(description="Seconds between checkpoints within an epoch; 0 for none."),
    ] = 600.0
    checkpoint_every_steps: Annotated[
        int,
        Meta(
            ge=0,
            le=2**63 - 1,
            description="Steps between checkpoints within an epoch; 0 for none.",
        ),
    ] = 0
    keep_epochs: Annotated[
        bool, Meta(description="Keep the weights of every epoch as epoch_N.pth.")
    ] = False
    log_every_steps: Annotated[
        int, Meta(ge=1, le=2**63 - 1, description="Steps between records of the losses.")
    ] = 10
    tensorboard: Annotated[
        bool, Meta(description="Write TensorBoard events if the package is installed.")
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile and self.checkpoint_activations:
            raise UsageError(
                "torch.compile and activation checkpointing cannot be combined here.",
                option="compile",
            )


def load_recipe(
    recipe: str | Path = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe by name or from a TOML file, with values replaced.

    Args:
        recipe: A name of ``recipe_names("training")``, or a TOML file with fields of
            :class:`Recipe`; see :mod:`tspcli.recipes.catalog` for its ``base`` and ``variant``. The
            ``recipe.toml`` of a run will do: what it says of that run's machine is left aside.
        overrides: Fields to replace. Weights to start from bring their backbone, unless a file or
            the overrides name one.

    Raises:
        UsageError: If there is no such recipe, or a field is unknown or of the wrong kind.
    """
    values = read_recipe(
        "training",
        recipe,
        overrides,
        ignored=("tool_version", "execution"),
        implied=_implied_by_weights,
    )
    return with_values(Recipe(), values, str(recipe))


def _implied_by_weights(told: Mapping[str, Any]) -> dict[str, Any]:
    init = told.get("init")
    if not isinstance(init, str) or init in (PRETRAINED, RANDOM):
        return {}
    from tspcli.encoders.loading import describe_weights

    with suppress(TspError):  # a run reports it together with all else that is wrong
        return {"backbone": describe_weights(init).backbone}
    return {}
