"""What the video transformers have in common: fused attention and the two-layer network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention, softmax(QK'/sqrt(d))V, fused wherever torch can.

    Args:
        query: (B, N, D); head h has the channels h * D / heads and following.
        key: (B, M, D).
        value: (B, M, D).
        heads: Number of heads.

    Returns:
        (B, N, D).
    """
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def project(layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    """Queries, keys and values, (B, N, D) each, of tokens (B, N, D).

    Where nothing is trained they are three products instead of one: attention reads each of them
    faster alone (5 % of both on a CPU). What replaces the layer, such as one with an adapter, is
    called as it is.

    Args:
        layer: Linear, D to 3 D.
        x: The tokens.
        bias: (3 D,), added to what the layer gives.
    """
    if type(layer) is not nn.Linear or torch.is_grad_enabled():
        out: Tensor = layer(x)
        return (out if bias is None else out + bias).chunk(3, dim=2)
    bias = layer.bias if bias is None else bias
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    parts = zip(layer.weight.chunk(3), biases, strict=True)
    return tuple(F.linear(x, weight, offset) for weight, offset in parts)


class Mlp(nn.Module):
    """Linear, GELU, linear.

    Args:
        width: Of input and output.
        hidden: Between the layers.
        approximate: ``none`` for GELU by the error function, ``tanh`` for its approximation.
    """

    def __init__(self, width: int, hidden: int, approximate: str = "none") -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


def draw_as_transformers(module: nn.Module) -> None:
    """Fresh weights as video transformers begin: normal of 0.02, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
