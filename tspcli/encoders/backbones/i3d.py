"""I3D: Inception-v1 with its filters inflated over time (Carreira and Zisserman, CVPR 2017).

The RGB network with the conventions of its TensorFlow original: "SAME" padding, which puts an odd
pixel at the end, and batch norms with a shift but no scale and an epsilon of 1e-3. The published
weights are nested numpy arrays of a JAX port (:func:`state_from_arrays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import CheckpointError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import ResizeSpec

FEATURE_DIM = 1024


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after an axis with which the output has ``ceil(size / stride)`` values.

    >>> same_padding(224, 7, 2), same_padding(56, 3, 1)
    ((2, 3), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float) -> Tensor:
    """Pad the last three axes of ``x`` as TensorFlow's "SAME" does."""
    amounts: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        amounts += same_padding(size, k, s)
    return F.pad(x, amounts, value=value) if any(amounts) else x


class SameConv3d(nn.Conv3d):
    """A convolution without bias, padded as "SAME"."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        # At stride 1 both sides are padded equally, so the convolution itself can do it.
        own = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, own, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        if self.stride[0] != 1:
            x = pad_same(x, self.kernel_size, self.stride, 0.0)
        return super().forward(x)


class Unit3d(nn.Module):
    """Convolution, batch norm without scale, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = SameConv3d(inputs, outputs, kernel, stride)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3, momentum=1e-3)
        # The original has no scale. This one is frozen; fused and synchronised batch norms expect a
        # tensor.
        self.bn.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        return F.relu(self.bn(self.conv(x)))


class SamePool3d(nn.Module):
    """Max-pooling padded as "SAME"."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        pads = [
            same_padding(*sizes)
            for sizes in zip(x.shape[2:], self.kernel, self.stride, strict=True)
        ]
        if all(before == after for before, after in pads):
            return F.max_pool3d(x, self.kernel, self.stride, [before for before, _ in pads])
        padded = pad_same(x, self.kernel, self.stride, float("-inf"))
        return F.max_pool3d(padded, self.kernel, self.stride)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; two 3x3x3, each behind a 1x1x1; 1x1x1 behind a pool."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3 = widths
        self.branch0 = Unit3d(inputs, w0)
        self.branch1 = nn.Sequential(Unit3d(inputs, w1a), Unit3d(w1a, w1b, 3))
        self.branch2 = nn.Sequential(Unit3d(inputs, w2a), Unit3d(w2a, w2b, 3))
        self.branch3 = nn.Sequential(SamePool3d((3, 3, 3), (1, 1, 1)), Unit3d(inputs, w3))
        self.width = w0 + w1b + w2b + w3

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W')."""
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


INCEPTION_WIDTHS: dict[str, tuple[int, ...]] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3d(nn.Module):
    """The network up to its last pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1a = Unit3d(3, 64, 7, 2)
        self.pool_2a = SamePool3d((1, 3, 3), (1, 2, 2))
        self.conv_2b = Unit3d(64, 64)
        self.conv_2c = Unit3d(64, 192, 3)
        self.pool_3a = SamePool3d((1, 3, 3), (1, 2, 2))
        width = 192
        for name, widths in INCEPTION_WIDTHS.items():
            if name == "mixed_4b":
                self.pool_4a = SamePool3d((3, 3, 3), (2, 2, 2))
            elif name == "mixed_5b":
                self.pool_5a = SamePool3d((2, 2, 2), (2, 2, 2))
            block = Inception(width, widths)
            self.add_module(name, block)
            width = block.width
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 1024) of clips (B, 3, T, H, W)."""
        for module in self.children():
            x = module(x)
        return pool_features(x)


def pool_features(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Mean over space, then over windows of two neighbouring times, then over the windows.

    The original pools like this before its classification layer: the first and last time count
    half. Clips of 16 frames have two times left, for which it is the plain mean.

    Args:
        x: (B, C, T, H, W) activations.
        dtype: Of the means; that of the activations by default.
    """
    over_space = x.mean(dim=(3, 4), dtype=dtype)
    if over_space.shape[2] > 1:
        over_space = (over_space[:, :, 1:] + over_space[:, :, :-1]) / 2
    return over_space.mean(dim=2)


_BRANCHES = {
    "branch0": "Branch_0/Conv3d_0a_1x1",
    "branch1.0": "Branch_1/Conv3d_0a_1x1",
    "branch1.1": "Branch_1/Conv3d_0b_3x3",
    "branch2.0": "Branch_2/Conv3d_0a_1x1",
    "branch2.1": "Branch_2/Conv3d_0b_3x3",
    "branch3.1": "Branch_3/Conv3d_0b_1x1",
}
NUMPY_NAMES = {
    "conv_1a": ("Conv3d_1a_7x7",),
    "conv_2b": ("Conv3d_2b_1x1",),
    "conv_2c": ("Conv3d_2c_3x3",),
    **{
        f"{block}.{ours}": (block.capitalize(), theirs)
        for block in INCEPTION_WIDTHS
        for ours, theirs in _BRANCHES.items()
    },
}
"""Our name of each convolution with its batch norm, and where the published arrays keep it."""


def state_from_arrays(tree: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Turn the published arrays into the state dict of an I3D with its action head.

    Args:
        tree: ``params`` and ``batch_stats`` as nested dicts. Kernels lie (T, H, W, in, out).
        path: For messages.

    Returns:
        Tensors under official names, ``features.``... and ``fc.``.

    Raises:
        CheckpointError: If an array is missing.
    """
    state: dict[str, Tensor] = {}
    for ours, theirs in NUMPY_NAMES.items():
        kernel = _at(tree, ("params", *theirs, "Conv_0", "kernel"), path)
        shift = _at(tree, ("params", *theirs, "BatchNorm_0", "bias"), path)
        mean = _at(tree, ("batch_stats", *theirs, "BatchNorm_0", "mean"), path)
        variance = _at(tree, ("batch_stats", *theirs, "BatchNorm_0", "var"), path)
        name = f"features.{ours}"
        state[f"{name}.conv.weight"] = _filters(kernel)
        state[f"{name}.bn.weight"] = torch.ones(shift.size)
        state[f"{name}.bn.bias"] = _tensor(shift).flatten()
        state[f"{name}.bn.running_mean"] = _tensor(mean).flatten()
        state[f"{name}.bn.running_var"] = _tensor(variance).flatten()
        state[f"{name}.bn.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    head = ("params", "Logits/Conv3d_0c_1x1", "Conv_0")
    state["fc.weight"] = _filters(_at(tree, (*head, "kernel"), path)).flatten(1)
    state["fc.bias"] = _tensor(_at(tree, (*head, "bias"), path))
    return state


def _filters(kernel: np.ndarray[Any, Any]) -> Tensor:
    return _tensor(kernel).permute(4, 3, 0, 1, 2).contiguous()


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32).reshape(array.shape))


def _at(tree: Any, keys: tuple[str, ...], path: Path) -> np.ndarray[Any, Any]:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            raise CheckpointError(
                f"{path} does not contain I3D: {'/'.join(keys)} is missing.",
                remedy="Give the Kinetics weights of I3D, or a checkpoint of torch tensors.",
                path=path,
                missing="/".join(keys),
            )
        tree = tree[key]
    if not isinstance(tree, np.ndarray):
        raise CheckpointError(
            f"{path} does not contain I3D: {'/'.join(keys)} is not an array.",
            path=path,
            missing="/".join(keys),
        )
    return tree


I3D = BackboneSpec(
    name="i3d",
    build=I3d,
    feature_dim=FEATURE_DIM,
    preprocessing=Preprocessing(
        resize=ResizeSpec(short_side=256),
        crop=(224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    # Localization methods that read I3D features expect snippets of 16 frames.
    sampling=Sampling(frame_rate=Fraction(25), grid_rate=Fraction(25)),
    layer="mixed_5c",
    pooling="own",
    stem=("conv_1a.",),
    plain_head="fc",
    keys="fd0e8cd77c2f53ac",
    from_arrays=state_from_arrays,
)
