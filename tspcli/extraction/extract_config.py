"""What a user can choose about an extraction, and what is known of the encoder that it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from tspcli.core.settings import PositiveInt, PositiveOrInfinite, Settings
from tspcli.encoders import Encoder, load_encoder
from tspcli.encoders.weights import DEFAULT_WEIGHTS, RANDOM_WEIGHTS
from tspcli.errors import CheckpointError, UsageError
from tspcli.recipes.feature_recipe import feature_recipe
from tspcli.sampling import Sampling
from tspcli.sampling.clock import round_half_away
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.spec import NATIVE, Align, Tail, as_rate, spread_offsets

ShortVideos = Literal["pad", "skip", "fail"]


@dataclass(frozen=True)
class ExtractConfig(Settings):
    """The settings of one extraction, each checked against its type.

    Attributes:
        weights: A name in the registry, a checkpoint file or a training run's folder.
        backbone: The backbone, if the weights do not say.
        sampling: How videos are cut into clips; None means what the weights were made for. What
            follows changes parts of it.
        frame_rate, clip_length, stride, grid_rate, phase, tail: See
            :class:`tspcli.sampling.Sampling`; the frame rate ``native`` takes the source's frames.
        interval: Samples from one frame of a clip to the next.
        window: Spread a clip over so many samples, or seconds with an ``s``, instead.
        align: Whether clips are counted from their ``start`` or their ``center``.
        batch_size: Clips per batch; None chooses by device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …; several, with commas, get a worker
            process each.
        gpus: How many GPUs compute, or ``all``, instead of ``device``.
        precision: ``auto``, ``fp32`` (nothing is rounded), ``tf32``, ``bf16`` or ``fp16``.
        runtime: What runs the encoder: ``torch``, ``compiled``, or ``openvino`` on CPUs.
        workers: Decode processes: in all on one machine, per worker on a cluster; None means one
            per core.
        decoder: ``auto`` or a decoder's name.
        short_videos: What to do with a video shorter than one clip: ``pad`` it by repeating its
            last frame, ``skip`` it, or let it ``fail``.
        overwrite: Replace a store that exists instead of adding to it.
        strict: Let a video fail if parts of it cannot be decoded, instead of keeping the rest.
        engine: ``local``: this machine; ``ray``: a Ray cluster, each of whose nodes sees the videos
            and the output under the same paths.
        ray_address: The cluster; None takes the one that this machine belongs to.
        shard: (i, n): only the i-th of n parts of the videos, counted from 1.
        key_template: How a video's key is made from its path.
        decode_timeout_s: Seconds without a frame after which a decoder counts as hung; infinite for
            no limit.
        seed: For ``random`` weights.
        recipe: The recipe of published features that is followed; it says nothing by itself, see
            :meth:`of_recipe`.
        profile: File for a trace of what each part did when (:mod:`tspcli.extraction.run_report`).
    """

    weights: str = DEFAULT_WEIGHTS
    backbone: str | None = None
    sampling: Sampling | None = None
    frame_rate: Fraction | float | str | None = None
    clip_length: int | None = None
    stride: int | None = None
    grid_rate: Fraction | float | str | None = None
    phase: int | None = None
    tail: Tail | None = None
    interval: int | None = None
    window: str | int | None = None
    align: Align | None = None
    batch_size: PositiveInt | None = None
    device: str = "auto"
    gpus: int | Literal["all"] | None = None
    precision: str = "auto"
    runtime: str = "torch"
    workers: PositiveInt | None = None
    decoder: str = "auto"
    short_videos: ShortVideos = "pad"
    overwrite: bool = False
    strict: bool = False
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    shard: tuple[int, int] | None = None
    key_template: str = "{stem}"
    decode_timeout_s: PositiveOrInfinite = 60.0
    seed: int | None = None
    profile: str | Path | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        gpus = self.gpus
        if gpus not in (None, "all") and not (isinstance(gpus, int) and gpus >= 1):
            raise UsageError(
                f"gpus is {gpus!r}; it must be all, or a whole number of at least 1.",
                option="gpus",
                value=gpus,
            )
        super().__post_init__()
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError(
                f"A Ray cluster is given ({self.ray_address}), but the engine is {self.engine}.",
                remedy="Add --engine ray, or drop --ray-address.",
            )
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(
                f"There is no shard {self.shard[0]} of {self.shard[1]}.",
                remedy="Shards are counted from 1: --shard 1/4 to --shard 4/4.",
            )

    @classmethod
    def of_recipe(cls, recipe: str | None = None, **options: Any) -> ExtractConfig:
        """The config that follows a recipe.

        Args:
            recipe: Its name, or a TOML file; None for none.
            options: Fields of the config, over those of the recipe; what differs is recorded.

        Raises:
            UsageError: If there is no such recipe.
        """
        if recipe is None:
            return cls(**options)
        followed = feature_recipe(recipe)
        chosen = {"weights": followed.weights, "sampling": followed.sampling, **options}
        if chosen["weights"] == RANDOM_WEIGHTS and chosen.get("backbone") is None:
            chosen["backbone"] = followed.backbone
        return cls(**chosen, recipe=str(recipe))

    @classmethod
    def like(cls, settings: Mapping[str, Any], **more: Any) -> ExtractConfig:
        """The config that extracts as a store was extracted.

        Args:
            settings: Of the store; what they do not say has its default.
            more: Further fields, such as the weights.
        """
        chosen = {"backbone": settings.get("backbone"), **more}
        if "sampling" in settings:
            chosen.setdefault("sampling", Sampling.from_dict(settings["sampling"]))
        return cls(**chosen)

    def resolve_sampling(self, default: Sampling) -> Sampling:
        """The sampling of this run: what was chosen, over what the weights were made for.

        Raises:
            UsageError: If the parts do not fit together.
        """
        base = self.sampling or default
        names = ("clip_length", "stride", "phase", "tail")
        chosen: dict[str, Any] = {
            name: value for name in names if (value := getattr(self, name)) is not None
        }
        sampling = replace(base, **{**self._rates(base), **self._offsets(base), **chosen})
        if sampling.is_native and self.grid_rate is not None:
            raise UsageError(
                f"The grid rate {self.grid_rate} has no effect on native frames.",
                remedy="Give a --frame-rate, or leave --grid-rate out.",
                option="grid_rate",
                value=self.grid_rate,
            )
        return sampling

    def _rates(self, base: Sampling) -> dict[str, Any]:
        if self.frame_rate == NATIVE or (self.frame_rate is None and base.is_native):
            return {"frame_rate": Fraction(0), "grid_rate": Fraction(0)}
        rates = {
            name: as_rate(value, name.replace("_", " "))
            for name in ("frame_rate", "grid_rate")
            if (value := getattr(self, name)) is not None
        }
        # An encoder that samples its videos directly does so at another rate too.
        if base.grid_rate == base.frame_rate and "frame_rate" in rates:
            rates.setdefault("grid_rate", rates["frame_rate"])
        return rates

    def _offsets(self, base: Sampling) -> dict[str, Any]:
        """What a chosen interval, window or alignment makes of a clip."""
        if self.interval is None and self.window is None and self.align is None:
            if base.offsets and self.clip_length not in (None, base.clip_length):
                raise UsageError(
                    f"A clip length of {self.clip_length} leaves open which frames a clip has: the "
                    f"sampling has {base.clip_length}, at {list(base.offsets)}.",
                    remedy="Add --interval or --window.",
                    option="clip_length",
                    value=self.clip_length,
                )
            return {} if self.clip_length is None else {"need": 0, "extent": None}
        if self.interval is not None and self.window is not None:
            raise UsageError(
                f"The interval {self.interval} and the window {self.window} both say how far apart "
                "a clip's frames are.",
                option="interval",
                value=self.interval,
            )
        window = None if self.window is None else self._window_samples(base)
        align = self.align or "start"
        length = self.clip_length or base.clip_length
        return {
            "need": 0,
            **spread_offsets(length, interval=self.interval or 1, window=window, align=align),
        }

    def _window_samples(self, base: Sampling) -> int:
        text = str(self.window).strip()
        if not text.endswith("s"):
            if text.isdigit() and int(text) > 0:
                return int(text)
            raise UsageError(
                f"The window {text!r} is neither frames such as 48 nor seconds such as 3.2s.",
                option="window",
                value=self.window,
            )
        rate = replace(base, **self._rates(base)).frame_rate
        if not rate:
            raise UsageError(
                f"A window of {text} has another number of frames in each video of another rate.",
                remedy="Give the window in frames, or a --frame-rate.",
                option="window",
                value=self.window,
            )
        return max(1, round_half_away(as_rate(text[:-1], "window") * rate))


@dataclass(frozen=True)
class EncoderInfo:
    """What processes that do not hold an encoder have to know of it.

    Attributes:
        provenance: What a store keeps of it.
        sampling: The clips that suit its weights.
        frame_spec: The frames that it takes.
        feature_dim: Width of a row.
        device_type: ``cpu`` or ``cuda``.
        runtime: What computes.
    """

    provenance: Mapping[str, Any]
    sampling: Sampling
    frame_spec: FrameSpec
    feature_dim: int
    device_type: str
    runtime: str

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderInfo:
        """What is known of an encoder that is loaded."""
        return cls(
            encoder.provenance,
            encoder.sampling,
            encoder.frame_spec,
            encoder.feature_dim,
            encoder.device.type,
            encoder.runtime,
        )


def load_configured_encoder(config: ExtractConfig, device: str | None = None) -> Encoder:
    """The encoder that the user chose.

    Args:
        config: The user's choices.
        device: Where it computes, instead of the configured device.
    """

    def load(backbone: str | None) -> Encoder:
        return load_encoder(
            config.weights,
            backbone=backbone,
            device=device or config.device,
            precision=config.precision,
            seed=config.seed,
            runtime=config.runtime,
        )

    try:
        return load(config.backbone)
    except CheckpointError as error:
        # Of several backbones that a file of one's own fits, the recipe's is meant.
        if config.recipe is None or config.backbone is not None or "backbones" not in error.data:
            raise
        return load(feature_recipe(config.recipe).backbone)
