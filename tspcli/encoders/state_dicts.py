"""Whose weights these are: which backbone, in which layout, with which heads.

A checkpoint is recognised by the names and shapes of its tensors. Each :class:`BackboneSpec` states
a digest of its own, so that a backbone is built only where its digest is missing or out of date.
Inside this program the official names are used throughout: ``features.`` for the backbone, ``fc``
for a single head, ``fc1`` and ``fc2`` for the action and the region head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tspcli.core.regions import REGION_CLASSES
from tspcli.encoders.backbones import (
    BackboneSpec,
    backbone_spec,
    build_backbone,
    usable_specs,
)
from tspcli.encoders.tsp_model import Heads
from tspcli.errors import CheckpointError, DependencyError

OFFICIAL_PREFIX = "features."
WRAPPER_PREFIXES = ("module.",)
"""Prefixes that training programs put before every name; dropped."""
HEAD_LAYERS = ("fc", "fc1", "fc2")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class IdentifiedState:
    """Weights under official names.

    Attributes:
        backbone: The backbone that they fit.
        layout: How they were named: ``official`` or ``plain``.
        heads: The heads among them.
        state: Tensors under official names.
    """

    backbone: str
    layout: str
    heads: Heads
    state: dict[str, Tensor]


def identify(
    state: Mapping[str, Tensor],
    path: Path,
    *,
    backbone: str | None = None,
    heads: Heads | None = None,
    region_alone: bool = False,
) -> IdentifiedState:
    """Find the backbone, the layout and the heads of a dict of tensors.

    Args:
        state: The tensors of a checkpoint.
        path: The checkpoint, for messages.
        backbone: The only backbone to try, or None for all.
        heads: The heads that the checkpoint states; None to infer them from the tensors.
        region_alone: Whether a single head is known to be the region head. Without that knowledge
            it is taken for one only if it has more inputs than the backbone has features.

    Raises:
        CheckpointError: If they fit no backbone (the message names the differences from the
            nearest), if they fit several (``data["backbones"]``), or if the stated heads differ
            from the tensors.
        UsageError: If there is no such backbone.
    """
    for prefix in WRAPPER_PREFIXES:
        state = _without_prefix(state, prefix) or state
    specs = usable_specs() if backbone is None else [backbone_spec(backbone)]
    # Backbones of one family share a conversion, which may copy gigabytes.
    conversions = {spec.convert for spec in specs}
    converted = {convert: convert and convert(state) for convert in conversions}
    readings = [
        reading
        for spec in specs
        for tensors in (state, converted[spec.convert])
        if tensors is not None
        for reading in _readings(tensors, spec)
    ]
    recognised = [r for r in readings if r.spec.keys == digest_of_keys(shapes_of(r.body))]
    fits = {r.spec.name: r for r in reversed(recognised) if not _head_problems(r)}
    if len(fits) > 1:
        names = sorted(fits)
        raise CheckpointError(
            f"{path} fits {' and '.join(names)}: one network, which each takes other frames into.",
            remedy="Name the one that it was made with, --backbone NAME.",
            path=path,
            backbones=names,
        )
    fitting = next(iter(fits.values()), None)
    if fitting is None:
        fitting = _compare_with_built(readings, path, required=backbone is not None)
    if heads is None:
        heads = infer_heads(fitting.heads, fitting.spec.feature_dim, region_alone)
    _require_fit(heads, fitting, path)
    named = {OFFICIAL_PREFIX + k: v for k, v in fitting.body.items()}
    return IdentifiedState(fitting.spec.name, fitting.layout, heads, {**named, **fitting.heads})


class _Reading(NamedTuple):
    """The tensors of a checkpoint as those of one backbone and its heads."""

    spec: BackboneSpec
    layout: str
    body: dict[str, Tensor]
    heads: dict[str, Tensor]


def _compare_with_built(readings: list[_Reading], path: Path, *, required: bool) -> _Reading:
    """The reading that fits its backbone, for which the backbone is built.

    Raises:
        CheckpointError: If none fits; the message names the differences from the nearest.
        DependencyError: If a backbone cannot be built and is ``required``.
    """
    nearest: tuple[float, str, str] | None = None
    for reading in readings:
        try:
            wanted = backbone_shapes(reading.spec.name)
        except DependencyError:
            if required:
                raise
            continue
        found = shapes_of(reading.body)
        problems = difference(found, wanted) or _head_problems(reading)
        if not problems:
            return reading
        alike = sum(found.get(k) == shape for k, shape in wanted.items())
        score = alike / (len(wanted) + len(found))
        if nearest is None or score > nearest[0]:
            nearest = (score, reading.spec.name, problems)
    assert nearest is not None
    which = "" if required else "any known backbone; the nearest is "
    raise CheckpointError(
        f"{path} does not fit {which}{nearest[1]}: {nearest[2]}.",
        remedy="Name the backbone that it was made with, or give another checkpoint.",
        path=path,
        backbone=nearest[1],
        differences=nearest[2],
    )


def infer_heads(tensors: Mapping[str, Tensor], width: int, region_alone: bool = False) -> Heads:
    """The heads, from the shapes of their weights.

    Args:
        tensors: The heads' tensors under official names.
        width: Of the backbone's features.
        region_alone: See :func:`identify`.
    """
    sizes = {n: tensors[f"{n}.weight"].shape for n in HEAD_LAYERS if f"{n}.weight" in tensors}
    if "fc2" in sizes:
        return Heads(sizes["fc1"][0], True, sizes["fc2"][1] - width)
    if "fc" not in sizes:
        return Heads()
    outputs, inputs = sizes["fc"]
    if inputs > width or (region_alone and outputs == len(REGION_CLASSES)):
        return Heads(None, True, inputs - width)
    return Heads(outputs)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@cache
def backbone_shapes(name: str) -> Shapes:
    """Names and shapes of a backbone's tensors, found without allocating any."""
    with torch.device("meta"), SkipInit():
        module = build_backbone(name)
    return shapes_of(module.state_dict())


def digest_of_keys(shapes: Shapes) -> str:
    """16 hexadecimal digits for the names and shapes of a backbone's tensors.

    Batch counters are left out: old checkpoints lack them and inference ignores them.

    >>> digest_of_keys({"stem.weight": (3, 4), "norm.num_batches_tracked": ()})
    '741e7f3d9ce65e25'
    """
    lines = [f"{k} {tuple(shapes[k])}\n" for k in sorted(shapes) if not _is_counter(k)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def difference(found: Shapes, wanted: Shapes, most: int = 3) -> str:
    """In words, how the tensors found differ from those wanted; empty if they do not.

    Missing batch counters are no difference.
    """
    missing = [k for k in wanted if k not in found and not _is_counter(k)]
    unexpected = [k for k in found if k not in wanted]
    wrong = [
        f"{k} is {found[k]}, expected {wanted[k]}"
        for k in wanted
        if k in found and found[k] != wanted[k]
    ]
    parts = []
    for title, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)):
        if names:
            shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
            parts.append(f"{len(names)} {title} ({shown})")
    return "; ".join(parts)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _readings(state: Mapping[str, Tensor], spec: BackboneSpec) -> Iterator[_Reading]:
    """The ways to read the names of a state dict for one backbone."""
    if any(k.startswith(OFFICIAL_PREFIX) for k in state):
        heads = {k: v for k, v in state.items() if k.rpartition(".")[0] in HEAD_LAYERS}
        body = {k.removeprefix(OFFICIAL_PREFIX): v for k, v in state.items() if k not in heads}
        yield _Reading(spec, "official", body, heads)
    heads, body = {}, {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        if layer == spec.plain_head and part in ("weight", "bias"):
            # S3D's layer is a 1x1x1 convolution.
            heads[f"fc.{part}"] = tensor.flatten(1) if part == "weight" else tensor
        else:
            body[name] = tensor
    bodies = [body]
    bodies += [b for p in spec.key_prefixes if (b := _without_prefix(body, p)) is not None]
    for own in bodies:
        yield _Reading(spec, "plain", own, heads)
    if spec.rename is not None:
        for foreign in bodies:
            names = {name: spec.rename(name) for name in foreign}
            renamed = {own: foreign[name] for name, own in names.items() if own is not None}
            # Two tensors under one name would lose one of them in silence.
            if len(renamed) == sum(own is not None for own in names.values()):
                yield _Reading(spec, "plain", renamed, heads)


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    """The tensors without a prefix that all their names have; None if not all do."""
    if not all(k.startswith(prefix) for k in state):
        return None
    return {k.removeprefix(prefix): v for k, v in state.items()}


def _head_problems(reading: _Reading) -> str:
    """What is wrong with the heads, in words; empty if nothing is."""
    heads, width = reading.heads, reading.spec.feature_dim
    layers = sorted({k.rpartition(".")[0] for k in heads})
    if layers not in ([], ["fc"], ["fc1", "fc2"]):
        return f"heads {', '.join(layers)} where fc, or fc1 and fc2, are expected"
    for layer in layers:
        weight, bias = heads.get(f"{layer}.weight"), heads.get(f"{layer}.bias")
        if weight is None or bias is None:
            return f"head {layer} lacks its {'weight' if weight is None else 'bias'}"
        inputs = weight.shape[1] if weight.ndim == 2 else -1
        exact = layer == "fc1"
        if inputs < width or (exact and inputs != width) or bias.shape != weight.shape[:1]:
            return (
                f"head {layer} has weight {tuple(weight.shape)} and bias {tuple(bias.shape)} "
                f"on features of {width}"
            )
        if layer == "fc2" and weight.shape[0] != len(REGION_CLASSES):
            return f"head fc2 has {weight.shape[0]} classes, expected {len(REGION_CLASSES)}"
    return ""


def _require_fit(heads: Heads, reading: _Reading, path: Path) -> None:
    """Refuse stated heads of other sizes than the tensors, before memory is taken for them."""
    for name, (inputs, outputs) in heads.layers(reading.spec.feature_dim).items():
        tensor = reading.heads.get(f"{name}.weight")
        if tensor is None or tuple(tensor.shape) != (outputs, inputs):
            raise CheckpointError(
                f"{path} states that {name} has {inputs} inputs and {outputs} outputs, but holds "
                f"{'no such head' if tensor is None else tuple(tensor.shape)}.",
                remedy="Fetch or save it again.",
                path=path,
                head=name,
            )


_RANDOM = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)


class SkipInit(TorchFunctionMode):
    """While it is active, parameters that would be drawn at random are zero.

    For networks whose weights are loaded next: drawing 64 million numbers takes a second. Tensors
    without memory would make torch import its compiler, which takes longer. Zero, and not whatever
    memory holds, because some initialisers draw again until all values lie within bounds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the functions that draw, and call all others."""
        given = kwargs or {}
        if func not in _RANDOM:
            return func(*args, **given)
        with torch.no_grad():
            return (args[0] if args else given["tensor"]).zero_()
