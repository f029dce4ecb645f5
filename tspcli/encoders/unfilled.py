"""Networks whose weights come from elsewhere, or are not needed: built without random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
