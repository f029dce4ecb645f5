"""Recipes: what is learned and how, as data that an option or a TOML file overrides.

A recipe decides on the result. How a machine computes it (precision, workers, cache) stands apart,
in :class:`Execution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tspcli.core.settings import with_values
from tspcli.errors import UsageError
from tspcli.recipes.catalog import read_recipe
from tspcli.sampling.spec import as_rate

DEFAULT_RECIPE = "tsp-activitynet"
HEADS = ("action", "region")
GVF_KINDS = ("max", "mean", "none")
BATCH_NORM_MODES = ("train", "frozen", "sync")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
ON_UNREADABLE = ("stop", "skip")
_MANY = 1_000_000
_HUGE = 1e30
"""Far beyond use, and still far within the range of float32."""
RANGES: dict[str, tuple[float, float]] = {
    "action_alpha": (0, _HUGE),
    "region_alpha": (0, _HUGE),
    "clip_length": (1, _MANY),
    "clips_per_segment": (1, _MANY),
    "resize": (1, _MANY),
    "crop": (1, _MANY),
    "epochs": (1, _MANY),
    "batch_size": (1, _MANY),
    "stem_lr": (0, _HUGE),
    "backbone_lr": (0, _HUGE),
    "head_lr": (0, _HUGE),
    "momentum": (0, 0.9999),
    "weight_decay": (0, _HUGE),
    "warmup_epochs": (0, _MANY),
    "warmup_factor": (0, 1),
    "milestones": (1, _MANY),
    "gamma": (0, 1),
    "seed": (0, 2**64 - 1),
    "accumulate": (1, _MANY),
    "workers": (-1, _MANY),
    "checkpoint_every_s": (0, _HUGE),
    "checkpoint_every_steps": (0, 2**63),
    "log_every_steps": (1, 2**63),
}
"""Least and most that every number of a recipe and of an execution may be."""


@dataclass(frozen=True)
class Recipe:
    """Everything on which the trained weights depend, besides the data.

    Attributes:
        name: Of the recipe that this one started from.
        backbone: A registered backbone.
        init: Weights to start from: ``pretrained`` (the backbone's Kinetics weights), a name in the
            registry, a checkpoint, a run directory, or ``random``.
        heads: ``action``, ``region`` or both; one is TAC or the region head alone, two are TSP.
        gvf_pool: How the global video feature was pooled: ``max``, ``mean``, or ``none`` to do
            without one.
        gvf_weights: The encoder that the global video features shall come from: a name in the
            registry, a checkpoint or a run directory.
        foreground_only: Whether clips of background are left out (TAC).
        action_alpha: Weight of the action head's loss.
        region_alpha: Weight of the region head's loss.
        clip_length: Frames a clip.
        frame_rate: Frames a second inside a clip; a decimal or a ratio.
        clips_per_segment: Clips drawn from each segment and epoch.
        resize: (height, width) of frames before the crop; empty for the backbone's own.
        crop: (height, width) of the crop; empty for the backbone's own.
        epochs: Passes over the segments.
        batch_size: Clips a step on each device.
        stem_lr: Learning rate of the stem.
        backbone_lr: Learning rate of the backbone's other layers.
        head_lr: Learning rate of the heads.
        scale_lr_by_world_size: Whether the learning rates are multiplied by the number of devices.
        momentum: Of SGD.
        weight_decay: Of SGD.
        warmup_epochs: Epochs in which the learning rates rise linearly to their full values.
        warmup_factor: Where they begin, as a factor.
        milestones: Epochs from which the learning rates are multiplied by gamma.
        gamma: What they are multiplied by at each milestone.
        batch_norm: ``train`` (statistics of each device's batch), ``sync`` (of all devices' batch)
            or ``frozen`` (neither statistics nor scales move).
        seed: Of everything that chance decides.
    """

    name: str = "custom"
    backbone: str = "r2plus1d_34"
    init: str = "pretrained"
    heads: tuple[str, ...] = HEADS
    gvf_pool: str = "none"
    gvf_weights: str = ""
    foreground_only: bool = False
    action_alpha: float = 1.0
    region_alpha: float = 1.0
    clip_length: int = 16
    frame_rate: str = "15"
    clips_per_segment: int = 5
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    epochs: int = 8
    batch_size: int = 32
    stem_lr: float = 0.0
    backbone_lr: float = 1e-4
    head_lr: float = 2e-3
    scale_lr_by_world_size: bool = True
    momentum: float = 0.9
    weight_decay: float = 0.005
    warmup_epochs: int = 2
    warmup_factor: float = 1e-5
    milestones: tuple[int, ...] = (4, 6)
    gamma: float = 0.01
    batch_norm: str = "train"
    seed: int = 42

    def __post_init__(self) -> None:
        _check_choice("heads", self.heads, HEADS, several=True)
        _check_choice("gvf_pool", self.gvf_pool, GVF_KINDS)
        _check_choice("batch_norm", self.batch_norm, BATCH_NORM_MODES)
        as_rate(self.frame_rate, "frame rate")
        _check_ranges(self)
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value and len(value) != 2:
                raise UsageError(f"{name} {value} is no size.", remedy="Give height and width.")
        if self.gvf_pool != "none" and "region" not in self.heads:
            raise UsageError(
                f"A {self.gvf_pool} GVF needs the region head, and there is only the action head.",
                remedy="Set gvf_pool to none, or add the region head.",
            )
        if self.foreground_only and "region" in self.heads:
            raise UsageError(
                "The region head cannot learn from clips of actions alone.",
                remedy="Set foreground_only to false, or train the action head alone.",
            )
        if list(self.milestones) != sorted(self.milestones):
            raise UsageError(f"milestones {self.milestones} do not rise.", remedy="Sort them.")

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

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`."""
        return with_values(cls(), values, "recipe")


@dataclass(frozen=True)
class Execution:
    """How a machine computes a run; the result depends on it by rounding alone, unless it skips.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: ``auto`` (bf16 on devices that have it, else fp32), ``fp32``, ``tf32``, ``bf16``.
        accumulate: Into how many pieces each batch is cut to save memory.
        compile: Whether the model goes through ``torch.compile``.
        channels_last: Whether activations lie in ``channels_last_3d`` order; by default they do on
            CUDA devices.
        checkpoint_activations: Whether activations are computed twice to save memory.
        workers: Loader processes of each device; -1 chooses, 0 reads in the training process.
        decoder: ``auto`` or a decoder's name, for reading straight from videos.
        on_unreadable: What to do about video that cannot be read: ``stop``, naming it, or ``skip``:
            leave out the videos that fail before training, and put another clip of the same class
            in the place of one that fails in training; in validation it is left out. All is
            counted.
        cache: Folder of the clip cache; empty to read straight from videos.
        cache_codec: How frames lie in the cache: ``raw`` (exact, fastest), ``webp`` (exact, a third
            of the size, slow), ``jpeg`` (a fifth of the size, not exact).
        checkpoint_every_s: Seconds from one checkpoint inside an epoch to the next; 0 for none.
        checkpoint_every_steps: Likewise in steps.
        keep_epochs: Whether every epoch's weights are kept as ``epoch_N.pth``.
        log_every_steps: Steps from one record of the losses to the next.
        tensorboard: Whether TensorBoard events are written, where the package is installed.
    """

    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    compile: bool = False
    channels_last: bool | None = None
    checkpoint_activations: bool = False
    workers: int = -1
    decoder: str = "auto"
    on_unreadable: str = "stop"
    cache: str = ""
    cache_codec: str = "raw"
    checkpoint_every_s: float = 600.0
    checkpoint_every_steps: int = 0
    keep_epochs: bool = False
    log_every_steps: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("on_unreadable", self.on_unreadable, ON_UNREADABLE)
        _check_ranges(self)
        if self.compile and self.checkpoint_activations:
            raise UsageError(
                "torch.compile and activation checkpointing do not go together here.",
                remedy="Choose one of the two.",
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return _plain(asdict(self))


def load_recipe(
    recipe: str | Path = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe by name or from a TOML file, with values replaced.

    Args:
        recipe: A name of ``recipe_names("training")``, or a TOML file with fields of
            :class:`Recipe`; see :mod:`tspcli.recipes.catalog` for its ``base`` and ``variant``. The
            ``recipe.toml`` of a run will do: what it says of that run's machine is left aside.
        overrides: Fields to replace.

    Raises:
        UsageError: If there is no such recipe, or a field is unknown or of the wrong kind.
    """
    values = read_recipe("training", recipe, overrides, ignored=("tool_version", "execution"))
    return with_values(Recipe(), values, str(recipe))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


def _check_choice(
    name: str, value: str | Sequence[str], known: Sequence[str], several: bool = False
) -> None:
    chosen = list(value) if several else [value]
    unknown = [v for v in chosen if v not in known]
    if unknown or not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(
            f"{name} {value!r} is not among {', '.join(known)}.", remedy="Choose from those."
        )


def _check_ranges(settings: Recipe | Execution) -> None:
    """See that every number is one, and makes sense.

    Raises:
        UsageError: With the first that does not.
    """
    for name, value in vars(settings).items():
        least, most = RANGES.get(name, (None, None))
        if least is None or most is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number <= most:  # NaN is not either
                raise UsageError(
                    f"{name} {number} is out of range.", remedy=f"Give {least} to {most}."
                )
