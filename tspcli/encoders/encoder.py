"""The encoder that extraction runs: frames in, clip features out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from tspcli.core.files import file_sha256
from tspcli.encoders import weights as registry
from tspcli.encoders.backbones import BackboneSpec, backbone_spec
from tspcli.encoders.checkpoints import Checkpoint, load_checkpoint
from tspcli.encoders.fused import FastVideoResNet, inference_form
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.runtimes import GraphedForm, OpenVinoForm, static_form
from tspcli.encoders.shared_clips import SharedVideoResNet
from tspcli.encoders.tsp_model import TspModel
from tspcli.errors import UsageError
from tspcli.fetch.url import Progress
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameDtype, FrameSpec

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
Runtime = Literal["torch", "compiled", "openvino"]
RUNTIMES = get_args(Runtime)
_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Encoder:
    """A backbone with its weights on a device, ready to encode clips.

    Made by :func:`load_encoder`.

    Attributes:
        backbone: Registry name of the backbone.
        feature_dim: Width D of the features.
        sampling: The clips that suit the weights.
        preprocessing: The frames that suit the weights.
        device: Where it computes.
        precision: The arithmetic, resolved (never ``auto``).
        runtime: What computes.
        frames_dtype: Whether scaled frames are rounded to 8 bits on the way.
        class_names: Of the action head's outputs, if known.
        module: The plain model, as loaded: a :class:`TspModel` in float32.
        provenance: What a store has to keep to know where its features come from.
    """

    def __init__(
        self,
        model: TspModel,
        spec: BackboneSpec,
        *,
        device: torch.device,
        precision: Precision,
        frames_dtype: FrameDtype,
        sampling: Sampling | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: tuple[str, ...] | None = None,
        origin: dict[str, Any] | None = None,
        fast: bool = True,
        runtime: Runtime = "torch",
    ) -> None:
        self.spec = spec
        self.backbone = spec.name
        self.feature_dim = spec.feature_dim
        self.sampling = sampling or spec.sampling
        self.preprocessing = preprocessing or spec.preprocessing
        self.device = device
        self.precision: Precision = precision
        self.runtime: Runtime = runtime
        self.frames_dtype: FrameDtype = frames_dtype
        self.class_names = class_names
        self.module: TspModel = model.eval().requires_grad_(False)
        self.dtype = _DTYPES[precision]
        self._backbone: nn.Module
        if runtime == "openvino":
            self._backbone = OpenVinoForm(self.module.features)
        elif fast:
            self._backbone = inference_form(self.module.features, device, self.dtype)
        else:
            self._backbone = self.module.features.to(device)
        if runtime == "compiled":
            self._backbone = static_form(self._backbone, device)
        self._shared: SharedVideoResNet | None = None
        if isinstance(self._backbone, FastVideoResNet):
            self._shared = SharedVideoResNet(self._backbone)
        self.module.to("cpu" if fast else device)
        self.provenance: dict[str, Any] = {
            "backbone": self.backbone,
            **(origin or {}),
            "preprocessing": self.preprocessing.to_dict(),
            "precision": precision,
            "frames_dtype": frames_dtype,
        }

    @property
    def wants_full_batches(self) -> bool:
        """Whether a size of batch that is new costs more than clips that nobody wants.

        cuDNN then searches again for the fastest way to convolve, or all is compiled again.
        """
        return self.device.type == "cuda" or self.runtime == "compiled"

    @property
    def frame_spec(self) -> FrameSpec:
        """The frames that :meth:`prepare` takes."""
        return self.preprocessing.frame_spec(self.frames_dtype)

    def prepare(self, frames: Tensor) -> Tensor:
        """Normalise frames, once each, on the device.

        Args:
            frames: (N, h, w, 3) as :attr:`frame_spec` says, values 0..255, uint8 or float32.

        Returns:
            (N, 3, h, w) on the device, in the dtype that it computes in.
        """
        moved = frames.to(self.device, non_blocking=True)
        return self.preprocessing.normalize(moved, self.dtype)

    def encode(self, clips: Tensor) -> Tensor:
        """Features of clips.

        Args:
            clips: (B, 3, T, h, w) of prepared frames, in any memory order.

        Returns:
            (B, D) float32 on the CPU.

        Raises:
            UsageError: If the backbone cannot take clips of T frames, or fp16 overflows.
            torch.cuda.OutOfMemoryError: If the batch is too large for the device; a smaller one
                may be tried afterwards.
        """
        return self.start(clips)()

    def start(self, clips: Tensor) -> Callable[[], Tensor]:
        """Begin to encode clips, and do not wait for a GPU to be done.

        Args:
            clips: As for :meth:`encode`, which see for the errors.

        Returns:
            A function that waits and gives the rows, (B, D) float32 on the CPU.
        """
        self.spec.check_clip_length(clips.shape[2])
        done: torch.cuda.Event | None = None
        with torch.inference_mode(), _arithmetic(self.device, self.precision):
            clips = clips.to(self.device, self.dtype, non_blocking=True)
            features: Tensor = self._backbone(clips)
            rows = features.float()
            if self.device.type == "cuda":
                there, rows = rows, torch.empty(rows.shape, pin_memory=True)
                rows.copy_(there, non_blocking=True)
                # Whoever waits for it sleeps: spinning would take a core from the decoders.
                done = torch.cuda.Event(blocking=True)
                done.record(torch.cuda.current_stream(self.device))
            else:
                rows = rows.cpu()

        def wait() -> Tensor:
            if done is not None:
                done.synchronize()
            if self.precision == "fp16" and not torch.isfinite(rows).all():
                raise UsageError(
                    "The features do not fit into the range of fp16 numbers.",
                    remedy="Use --precision bf16 or fp32.",
                )
            return rows

        return wait

    def release(self) -> None:
        """Give back a GPU's memory that is kept for batches to come."""
        if isinstance(self._backbone, GraphedForm):
            self._backbone.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def shares(self, sampling: Sampling) -> bool:
        """Whether :meth:`encode_series` is the faster way for clips that overlap so much."""
        return (
            self._shared is not None
            and self.device.type == "cpu"
            and sampling.is_regular
            and sampling.stride <= self._shared.largest_stride
            and sampling.clip_length > 2 * self._shared.lost
        )

    def encode_series(self, frames: Tensor, sampling: Sampling) -> Tensor:
        """Features of overlapping clips, without computing twice what they have in common.

        The same as :meth:`encode` of the clips, up to rounding.

        Args:
            frames: (S, 3, h, w) prepared frames, S = (clips - 1) * stride + clip_length.
            sampling: How clips are cut from them; one that :meth:`shares` approves.

        Returns:
            (clips, D) float32 on the CPU.
        """
        assert self._shared is not None
        self.spec.check_clip_length(sampling.clip_length)
        with torch.inference_mode(), _arithmetic(self.device, self.precision):
            frames = frames.to(self.device, self.dtype)
            rows: Tensor = self._shared(frames, sampling.clip_length, sampling.stride)
            return rows.float().cpu()

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Features of clips given as frames: :meth:`prepare`, then :meth:`encode`.

        Args:
            frames: (B, T, h, w, 3), values 0..255.
        """
        count, length = frames.shape[:2]
        prepared = self.prepare(frames.flatten(0, 1))
        clips = prepared.unflatten(0, (count, length)).transpose(1, 2)
        return self.encode(clips)

    def classify(self, features: Tensor) -> Tensor | None:
        """Logits (B, classes) of the action head for features (B, D); None without such a head."""
        with torch.inference_mode():
            weight = next(self.module.parameters())
            return self.module.action_logits(features.float().to(weight.device))


def load_encoder(
    weights: str | Path = registry.DEFAULT_WEIGHTS,
    *,
    backbone: str | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    seed: int | None = None,
    fast: bool = True,
    runtime: str = "torch",
    on_progress: Progress | None = None,
) -> Encoder:
    """Load an encoder by the name of its weights or from a checkpoint.

    Args:
        weights: A name from the registry (fetched if it is not at hand), a checkpoint file, a
            training run's folder, or ``"random"`` for fresh weights (tests, benchmarks).
        backbone: Registry name of the backbone; needed for ``"random"``, else found from the
            weights, and an error if it contradicts them.
        device: ``auto`` (CUDA where there is one, else the CPU) or a torch device.
        precision: ``fp32`` rounds nothing on the way from the decoder to the feature; ``tf32``,
            ``bf16`` and ``fp16`` are CUDA arithmetics (bf16 runs on CPUs too); ``auto`` takes
            fp16 on CUDA and float32 on a CPU. Frames are rounded to 8 bits for bf16 alone.
        seed: Of random weights; 0 if not given.
        fast: Whether torch's backbone is rearranged for inference (the same function, up to
            rounding).
        runtime: ``torch``; ``compiled``, torch's compiler, on CUDA recorded as a graph, which takes
            a minute or more for each size of batch; or ``openvino`` (extra ``[openvino]``; CPUs,
            float32).
        on_progress: Told how far a download is.

    Raises:
        UsageError: If the arguments contradict each other.
        DependencyError: If OpenVINO is asked for and not installed.
        WeightsError: If the weights are unknown or cannot be fetched.
        CheckpointError: If the file is not a checkpoint that can be loaded safely.
    """
    library = _resolve_runtime(runtime, device, precision)
    where = torch.device("cpu") if library == "openvino" else resolve_device(device)
    arithmetic = resolve_precision(precision, where)
    # Measured on I3D's real weights: 8-bit frames alone move features by up to 8e-3, too much for
    # anything but bf16, whose own rounding moves them by more than 1e-2.
    frames_dtype: FrameDtype = "uint8" if arithmetic == "bf16" else "float32"
    settings: dict[str, Any] = {
        "device": where,
        "precision": arithmetic,
        "frames_dtype": frames_dtype,
        "fast": fast,
        "runtime": library,
    }
    if str(weights) == registry.RANDOM_WEIGHTS:
        return _random_encoder(backbone, 0 if seed is None else seed, settings)
    if seed is not None:
        raise UsageError(
            f"--seed {seed} says nothing: the weights {str(weights)!r} are not random.",
            remedy="Leave it out, or give --weights random.",
        )
    checkpoint, entry = find_checkpoint(weights, backbone, on_progress)
    spec = backbone_spec(checkpoint.backbone)
    model = checkpoint.build_model()
    names = checkpoint.class_names
    if names is None and entry is not None and entry.classes is not None:
        names = registry.class_names(entry.classes)
    if names is not None and len(names) != checkpoint.heads.n_actions:
        names = None
    sampling, preprocessing = checkpoint.sampling, checkpoint.preprocessing
    if entry is not None and entry.sampling is not None:
        sampling = Sampling.from_dict(dict(entry.sampling))
    if entry is not None and entry.preprocessing is not None:
        preprocessing = Preprocessing.from_dict(entry.preprocessing)
    origin = {
        "weights": entry.name if entry is not None else checkpoint.path.name,
        "weights_sha256": file_sha256(checkpoint.path),
    }
    if entry is None:
        origin["weights_path"] = str(checkpoint.path.absolute())
    return Encoder(
        model,
        spec,
        sampling=sampling,
        preprocessing=preprocessing,
        class_names=names,
        origin=origin,
        **settings,
    )


def find_checkpoint(
    weights: str | Path,
    backbone: str | None = None,
    on_progress: Progress | None = None,
) -> tuple[Checkpoint, registry.WeightsEntry | None]:
    """Load weights by name or path; a path that exists comes before a name.

    Returns:
        The checkpoint, and the registry's entry if the weights were given by name.
    """
    if isinstance(weights, Path) or Path(weights).exists() or _looks_like_path(weights):
        return load_checkpoint(weights, backbone), None
    entry = registry.find_weights(weights)
    if backbone is not None and backbone != entry.backbone:
        raise UsageError(
            f"The weights {weights!r} are for {entry.backbone}, not {backbone}.",
            remedy="Leave the backbone out.",
        )
    path = registry.fetch_weights(weights, on_progress)
    return load_checkpoint(path, entry.backbone), entry


def _looks_like_path(weights: str) -> bool:
    return "/" in weights or "\\" in weights or weights.endswith((".pth", ".pt", ".ckpt", ".tar"))


def _random_encoder(backbone: str | None, seed: int, settings: dict[str, Any]) -> Encoder:
    if backbone is None:
        raise UsageError(
            "Random weights need a backbone.", remedy="Name one, such as --backbone r2plus1d_18."
        )
    spec = backbone_spec(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TspModel(backbone)
    origin = {"weights": registry.RANDOM_WEIGHTS, "weights_sha256": None, "seed": seed}
    return Encoder(model, spec, origin=origin, **settings)


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device that a name means.

    Raises:
        UsageError: If there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"{device!r} is no device.", remedy="Give auto, cpu, cuda or cuda:N."
        ) from error
    if where.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (where.index or 0) >= count:
            raise UsageError(
                f"There is no device {where}: torch sees {count} CUDA devices.",
                remedy="Use --device cpu, or see `tsp doctor`.",
            )
    return where


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """The arithmetic that a precision means on a device.

    Raises:
        UsageError: If it is unknown or the device lacks it.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"There is no precision {precision!r}.", remedy=f"Give one of {', '.join(PRECISIONS)}."
        )
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        # As fast as bf16 and eight times finer; encode() notices if its range is too small.
        return "fp16"
    if device.type != "cuda" and precision in ("tf32", "fp16"):
        raise UsageError(
            f"{precision} is an arithmetic of CUDA devices, not of {device}.",
            remedy="Use --precision auto, fp32 or bf16.",
        )
    return cast(Precision, precision)


def _resolve_runtime(runtime: str, device: str | torch.device, precision: str) -> Runtime:
    """The library that computes, if it can do so on this device and in this precision."""
    if runtime not in RUNTIMES:
        raise UsageError(
            f"There is no runtime {runtime!r}.", remedy=f"Give one of {', '.join(RUNTIMES)}."
        )
    if runtime == "openvino":
        if str(device) not in ("auto", "cpu"):
            raise UsageError(
                f"--runtime openvino computes on the CPU, not on {device}.",
                remedy="Leave one of the two out.",
            )
        if precision not in ("auto", "fp32"):
            raise UsageError(
                f"--runtime openvino computes in fp32, not in {precision}.",
                remedy="Leave one of the two out.",
            )
    return cast(Runtime, runtime)


@contextmanager
def _arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Allow exactly the arithmetic asked for, and put torch's settings back afterwards."""
    if device.type != "cuda":
        yield
        return
    allowed = precision == "tf32"
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, deterministic=False, allow_tf32=allowed
        ):
            yield
    finally:
        matmul.allow_tf32 = before


__all__ = ["Encoder", "find_checkpoint", "load_encoder", "resolve_device", "resolve_precision"]
