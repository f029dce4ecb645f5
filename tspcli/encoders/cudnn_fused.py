"""cuDNN's convolutions with bias, shortcut and ReLU in one kernel, checked before they are used.

torch adds a convolution's bias, its shortcut and its ReLU with kernels of their own, which move
more bytes than the convolutions of the first stage do. ``torch.cudnn_convolution_relu`` and
``torch.cudnn_convolution_add_relu`` are one kernel each, but no documented interface. Some engines
of cuDNN multiply what the output's memory held before by zero, which gives NaN where that was NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tspcli.core.devices import is_out_of_memory

_ERRORS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""The largest relative error against torch's own operations, by dtype."""
_TF32_ERROR = 2e-3


class Geometry(NamedTuple):
    """How a convolution's filters move over its input, per axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]


Fused = Callable[[Tensor, Tensor, Tensor, Geometry, "Tensor | None"], Tensor]


def plain_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, at: Geometry, shortcut: Tensor | None
) -> Tensor:
    """Convolution, plus ``shortcut`` (which is kept), then ReLU, by torch's own operations."""
    convolve: Callable[..., Tensor] = F.conv2d if x.ndim == 4 else F.conv3d
    out = convolve(x, weight, bias, *at)
    return (out if shortcut is None else out.add_(shortcut)).relu_()


def _with_shortcut(
    x: Tensor, weight: Tensor, bias: Tensor, at: Geometry, shortcut: Tensor | None
) -> Tensor:
    ones = [1] * len(at.stride)
    assert shortcut is not None
    out: Tensor = torch.cudnn_convolution_add_relu(
        x, weight, shortcut, 1.0, bias, at.stride, at.padding, ones, 1
    )
    return out


def _without_shortcut(
    x: Tensor, weight: Tensor, bias: Tensor, at: Geometry, shortcut: Tensor | None
) -> Tensor:
    ones = [1] * len(at.stride)
    out: Tensor = torch.cudnn_convolution_relu(x, weight, bias, at.stride, at.padding, ones, 1)
    return out


class CudnnConvolution:
    """A convolution with ReLU that uses cuDNN's fused kernel for the shapes for which it is right.

    The first call for a shape tries the fused kernel on the input at hand, in memory that is full
    of NaN where the allocator hands it out again, and compares the first and the last image of the
    batch with torch's own operations. That call waits for the device; later ones do not.

    Args:
        fuse: Whether fused kernels are tried at all.
    """

    def __init__(self, *, fuse: bool = True) -> None:
        self._fuse = fuse
        self._chosen: dict[object, Fused] = {}

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, at: Geometry, shortcut: Tensor | None
    ) -> Tensor:
        """Convolution of (B, C, …), plus ``shortcut``, then ReLU.

        Raises:
            RuntimeError: If memory runs out (:func:`~tspcli.core.devices.is_out_of_memory`).
        """
        cudnn: Any = torch.backends.cudnn  # torch's stubs lack its parts
        tf32 = x.dtype == torch.float32 and cudnn.conv.fp32_precision != "ieee"
        case = (x.shape, x.stride(), x.dtype, x.device, at, shortcut is None, tf32)
        if case not in self._chosen:
            fused = _without_shortcut if shortcut is None else _with_shortcut
            bar = _TF32_ERROR if tf32 else _ERRORS.get(x.dtype, 0.0)
            right = self._fuse and _is_right(fused, bar, x, weight, bias, at, shortcut)
            self._chosen[case] = fused if right else plain_convolution
        return self._chosen[case](x, weight, bias, at, shortcut)

    @property
    def uses_fused(self) -> list[bool]:
        """For each shape so far, whether the fused kernel is used."""
        return [chosen is not plain_convolution for chosen in self._chosen.values()]


def _is_right(
    fused: Fused,
    bar: float,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    at: Geometry,
    shortcut: Tensor | None,
) -> bool:
    """Whether the fused kernel gives, for this input, what torch's own operations give."""
    try:
        out = fused(x, weight, bias, at, shortcut)
        # The allocator hands the block that was freed last out again.
        out.fill_(float("nan"))
        del out
        out = fused(x, weight, bias, at, shortcut)
    except (RuntimeError, AttributeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    if not bool(torch.isfinite(out).all()):
        return False
    for end in (slice(0, 1), slice(len(x) - 1, len(x))):
        part = None if shortcut is None else shortcut[end]
        expected = plain_convolution(x[end], weight, bias, at, part).float()
        # Zeros alone are right only if they are expected.
        if not bool((out[end].float() - expected).norm() <= bar * expected.norm()):
            return False
    return True


__all__ = ["CudnnConvolution", "Geometry", "plain_convolution"]
