"""Networks whose weights come from elsewhere, or are not needed: built without random numbers.

Whose weights are these: which backbone, which layout, which heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tspcli.encoders.backbones import BACKBONES, BackboneSpec, backbone_spec
from tspcli.encoders.tsp_model import REGION_CLASSES, Heads
from tspcli.errors import CheckpointError

_RANDOM = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)


class Unfilled(TorchFunctionMode):
    """While it is active, parameters that would be drawn at random are zero.

    Drawing 64 million of them takes a second. For tensors without memory torch imports its compiler
    first, which takes longer. Zero, and not whatever memory holds, because some are drawn again and
    again until they lie within bounds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace what draws, and call all else."""
        given = kwargs or {}
        if func not in _RANDOM:
            return func(*args, **given)
        with torch.no_grad():
            return (args[0] if args else given["tensor"]).zero_()


__all__ = ["Unfilled"]


OFFICIAL_PREFIX = "features."
HEAD_LAYERS = ("fc", "fc1", "fc2")
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class StateLayout:
    """Weights under official names, and how they were laid out before.

    Attributes:
        backbone: The backbone that they fit.
        layout: ``official`` or ``plain``.
        state: Tensors under official names.
    """

    backbone: str
    layout: str
    state: dict[str, Tensor]

    def guess_heads(self, region_alone: bool = False) -> Heads:
        """The heads, from the shapes of their weights.

        Args:
            region_alone: Whether a single head is known to be the region head. Without that
                knowledge it is taken for one only if it sees more than the clip's feature.
        """
        width = BACKBONES[self.backbone].feature_dim
        sizes = {n: tuple(self.state[f"{n}.weight"].shape) for n in self._head_names()}
        if "fc2" in sizes:
            return Heads(sizes["fc1"][0], True, sizes["fc2"][1] - width)
        if "fc" not in sizes:
            return Heads()
        outputs, inputs = sizes["fc"]
        if inputs > width or (region_alone and outputs == len(REGION_CLASSES)):
            return Heads(None, True, inputs - width)
        return Heads(outputs)

    def _head_names(self) -> Iterator[str]:
        return (name for name in HEAD_LAYERS if f"{name}.weight" in self.state)


@cache
def backbone_shapes(name: str) -> Shapes:
    """Names and shapes of a backbone's tensors, found without allocating any."""
    with torch.device("meta"), Unfilled():
        module = backbone_spec(name).build()
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def match_layout(state: Mapping[str, Tensor], backbone: str | None, path: Path) -> StateLayout:
    """Find the backbone and the layout of a dict of tensors.

    Args:
        state: The tensors of a checkpoint.
        backbone: The only backbone to try, or None for all.
        path: For messages.

    Raises:
        CheckpointError: If they fit none; the differences from the nearest are named.
        UsageError: If there is no such backbone.
    """
    state = _without_prefix(state, "module.")
    specs = [backbone_spec(backbone)] if backbone else list(BACKBONES.values())
    nearest: tuple[float, str, str] | None = None
    for spec in specs:
        wanted = backbone_shapes(spec.name)
        for layout, body, heads in _readings(state, spec):
            shapes = {k: tuple(v.shape) for k, v in body.items()}
            problems = difference(shapes, wanted) or _head_problems(heads, spec.feature_dim)
            if not problems:
                named = {OFFICIAL_PREFIX + k: v for k, v in body.items()}
                return StateLayout(spec.name, layout, {**named, **heads})
            alike = sum(shapes.get(k) == shape for k, shape in wanted.items())
            score = alike / (len(wanted) + len(shapes))
            if nearest is None or score > nearest[0]:
                nearest = (score, spec.name, problems)
    assert nearest is not None
    which = "" if backbone else "any known backbone; the nearest is "
    raise CheckpointError(
        f"{path} does not fit {which}{nearest[1]}: {nearest[2]}.",
        remedy="Name the backbone that it was made with, or give another checkpoint.",
    )


def difference(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], most: int = 3
) -> str:
    """In words, how the tensors found differ from those wanted; empty if they do not.

    Counters of batches are not counted: old checkpoints lack them and inference ignores them.
    """
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
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


def _readings(
    state: Mapping[str, Tensor], spec: BackboneSpec
) -> Iterable[tuple[str, dict[str, Tensor], dict[str, Tensor]]]:
    """The ways in which names can be read for one backbone: (layout, backbone, heads)."""
    if any(k.startswith(OFFICIAL_PREFIX) for k in state):
        heads = {k: v for k, v in state.items() if k.rpartition(".")[0] in HEAD_LAYERS}
        body = {k.removeprefix(OFFICIAL_PREFIX): v for k, v in state.items() if k not in heads}
        yield "official", body, heads
    heads, body = {}, {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        if layer == spec.plain_head and part in ("weight", "bias"):
            # S3D's layer is a 1x1x1 convolution.
            heads[f"fc.{part}"] = tensor.flatten(1) if part == "weight" else tensor
        else:
            body[name] = tensor
    yield "plain", body, heads


def _head_problems(heads: Mapping[str, Tensor], width: int) -> str:
    """What is wrong with heads, in words; empty if nothing is."""
    layers = sorted({k.rpartition(".")[0] for k in heads})
    if layers not in ([], ["fc"], ["fc1", "fc2"]):
        return f"heads {', '.join(layers)} where fc, or fc1 and fc2, are expected"
    for layer in layers:
        weight, bias = heads.get(f"{layer}.weight"), heads.get(f"{layer}.bias")
        if weight is None or bias is None:
            return f"head {layer} lacks its {'weight' if weight is None else 'bias'}"
        inputs = weight.shape[1] if weight.ndim == 2 else -1
        alone = layer == "fc1"
        if inputs < width or (alone and inputs != width) or bias.shape != weight.shape[:1]:
            return (
                f"head {layer} has weight {tuple(weight.shape)} and bias {tuple(bias.shape)} "
                f"on features of {width}"
            )
        if layer == "fc2" and weight.shape[0] != len(REGION_CLASSES):
            return f"head fc2 has {weight.shape[0]} classes, expected {len(REGION_CLASSES)}"
    return ""


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if all(k.startswith(prefix) for k in state):
        return {k.removeprefix(prefix): v for k, v in state.items()}
    return dict(state)
