"""Names of weights, backbones, devices and precisions turned into an :class:`Encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from tspcli.core.devices import resolve_device
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tspcli.encoders.encoder import Encoder
from tspcli.encoders.precision import resolve_precision, resolve_runtime
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.encoders.weights import (
    DEFAULT_WEIGHTS,
    RANDOM_WEIGHTS,
    WeightsEntry,
    class_names,
    locate,
    named_entry,
)
from tspcli.errors import CheckpointError, UsageError
from tspcli.fetch.url import Progress
from tspcli.sampling import Sampling


def load_encoder(
    weights: str | Path = DEFAULT_WEIGHTS,
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
        weights: A name from the registry (fetched if it is not on this machine), a checkpoint file,
            a training run's folder, or ``"random"`` for random weights (tests, benchmarks).
        backbone: Name of the backbone; required for ``"random"``. Otherwise it is inferred from the
            weights, and an error if it contradicts them.
        device: ``auto`` (CUDA where there is a device, else the CPU) or a torch device.
        precision: ``fp32`` rounds nothing between the decoder and the features; ``tf32``, ``bf16``
            and ``fp16`` are CUDA arithmetics (bf16 runs on CPUs too); ``auto`` is fp16 on CUDA and
            fp32 on a CPU. Frames are rounded to 8 bits for bf16 only.
        seed: Of random weights; 0 by default.
        fast: Whether torch's backbone is rearranged for inference (the same function, up to
            rounding).
        runtime: ``torch``; ``compiled``, torch's compiler, on CUDA recorded as a graph, which takes
            a minute or more for each batch size; or ``openvino`` (extra ``[openvino]``; CPUs,
            float32).
        on_progress: Called with (bytes so far, total bytes or None) during a download.

    Raises:
        UsageError: If the arguments contradict each other.
        DependencyError: If OpenVINO or the backbone needs a package that is not installed.
        WeightsError: If the weights are unknown or cannot be fetched.
        CheckpointError: If the file is not a checkpoint that can be loaded safely.
    """
    library = resolve_runtime(runtime, device, precision)
    where = torch.device("cpu") if library == "openvino" else resolve_device(device)
    number = resolve_precision(precision, where)
    is_random = str(weights) == RANDOM_WEIGHTS
    if seed is not None and not is_random:
        raise UsageError(
            f"--seed {seed} has no effect: the weights {str(weights)!r} are not random.",
            remedy="Leave it out, or give --weights random.",
            option="seed",
            value=seed,
        )
    if is_random:
        name = _require_backbone(backbone)
        seed = seed or 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = TspModel(name)
        origin = {"weights": RANDOM_WEIGHTS, "weights_sha256": None, "seed": seed}
        sampling, preprocessing, names = None, None, None
    else:
        located = locate(weights, backbone=backbone, on_progress=on_progress)
        checkpoint = load_checkpoint(located.path, located.backbone)
        name = checkpoint.backbone
        model = checkpoint.build_model()
        origin = {"weights": located.name, "weights_sha256": located.sha256}
        if located.entry is None:
            origin["weights_path"] = str(checkpoint.path.absolute())
        names = _class_names(checkpoint, located.entry)
        sampling, preprocessing = _suited_input(checkpoint, located.entry)
    return Encoder(
        model,
        backbone_spec(name),
        device=where,
        precision=number,
        # Measured with I3D's real weights: 8-bit frames alone move features by up to 8e-3, too much
        # for anything but bf16, whose own rounding moves them by more than 1e-2.
        frames_dtype="uint8" if number == "bf16" else "float32",
        sampling=sampling,
        preprocessing=preprocessing,
        class_names=names,
        origin=origin,
        fast=fast,
        runtime=library,
    )


def _require_backbone(backbone: str | None) -> str:
    if backbone is None:
        raise UsageError(
            "Random weights need a backbone.",
            remedy="Name one, such as --backbone r2plus1d_18.",
            option="backbone",
        )
    return backbone


def _class_names(checkpoint: Checkpoint, entry: WeightsEntry | None) -> tuple[str, ...] | None:
    """The names of the action head's outputs: the checkpoint's own, else the registry's."""
    names = checkpoint.class_names
    if names is None and entry is not None and entry.classes is not None:
        names = class_names(entry.classes)
    return names if names is not None and len(names) == checkpoint.heads.n_actions else None


class WeightsInput(NamedTuple):
    """What weights were made for, as far as it is known.

    Attributes:
        backbone: Theirs.
        sampling: The clips.
        preprocessing: The frames.
    """

    backbone: str
    sampling: Sampling
    preprocessing: Preprocessing


def describe_weights(weights: str | Path, backbone: str | None = None) -> WeightsInput:
    """What weights were made for; those of the registry are not fetched for it.

    Args:
        weights: As for :func:`load_encoder`.
        backbone: Theirs, if they fit several.

    Raises:
        WeightsError, CheckpointError: If there are none, or if they cannot be read.
    """
    entry = named_entry(weights)
    if entry is None or entry.embedded is not None:
        path = weights if entry is None else entry.local_path()
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            fitting = error.data.get("backbones")
            if not isinstance(fitting, list) or backbone not in fitting:
                raise
            checkpoint = load_checkpoint(path, backbone)
        backbone, (sampling, preprocessing) = checkpoint.backbone, _suited_input(checkpoint, entry)
    else:
        # Files of other publishers state neither.
        backbone, (sampling, preprocessing) = entry.backbone, _stated_input(entry)
    spec = backbone_spec(backbone)
    return WeightsInput(backbone, sampling or spec.sampling, preprocessing or spec.preprocessing)


def _suited_input(
    checkpoint: Checkpoint, entry: WeightsEntry | None
) -> tuple[Sampling | None, Preprocessing | None]:
    """The clips and frames that suit the weights: the registry's, else the checkpoint's own."""
    sampling, preprocessing = _stated_input(entry) if entry is not None else (None, None)
    return sampling or checkpoint.sampling, preprocessing or checkpoint.preprocessing


def _stated_input(entry: WeightsEntry) -> tuple[Sampling | None, Preprocessing | None]:
    return (
        None if entry.sampling is None else Sampling.from_dict(dict(entry.sampling)),
        None if entry.preprocessing is None else Preprocessing.from_dict(entry.preprocessing),
    )


def convert_checkpoint(
    source: str | Path,
    target: Path,
    *,
    backbone: str | None = None,
    strip_heads: bool = False,
    on_progress: Progress | None = None,
) -> Checkpoint:
    """Write weights in the official layout, with the names of their classes where they are known.

    Args:
        source: A checkpoint, a run's folder or a name from the registry.
        target: The file to write.
        backbone: Name of the backbone, if it should not be inferred from names and shapes.
        strip_heads: Whether to leave the heads out.
        on_progress: Called with (bytes so far, total bytes or None) during a download.

    Returns:
        The new checkpoint, read back.

    Raises:
        CheckpointError: If the source cannot be loaded or the target cannot be written.
        WeightsError: If the source is a name that is unknown or cannot be fetched.
    """
    located = locate(source, backbone=backbone, on_progress=on_progress)
    checkpoint = load_checkpoint(located.path, located.backbone)
    model = checkpoint.build_model()
    names = _class_names(checkpoint, located.entry)
    if strip_heads:
        model = TspModel(checkpoint.backbone, Heads())
        checkpoint.load_into(model, heads=False)
        names = None
    save_checkpoint(
        target,
        model,
        backbone=checkpoint.backbone,
        class_names=names,
        sampling=checkpoint.sampling,
        preprocessing=checkpoint.preprocessing,
    )
    return load_checkpoint(target)
