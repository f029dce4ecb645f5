"""What the machine can do at most, measured in the same run as what is held against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tspcli.encoders.fused import fused_convolution, has_fused_convolutions, pack_filters

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
COPIED_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
"""On a GPU so much that starting to copy and noticing its end do not count."""


def products(
    device: torch.device, dtype: torch.dtype
) -> tuple[float, dict[str, Callable[[], Any]]]:
    """A large matrix product: its operations, and the ways to do it.

    On some processors torch's matmul is far from what convolutions reach, so that the same product
    as a 1x1 convolution, through torch and straight through oneDNN, stands beside it.
    """
    side = MATMUL_SIZE[device.type]
    left = torch.randn(side, side, device=device, dtype=dtype)
    image = left.view(1, side, 32, -1).contiguous(memory_format=torch.channels_last)
    filters = left.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], Any]] = {
        "matmul": lambda: left @ left,
        "convolution": lambda: F.conv2d(image, filters),
    }
    if device.type == "cpu" and has_fused_convolutions(dtype):
        bias = torch.zeros(side, dtype=dtype)
        packed = pack_filters(filters, (0, 0), (1, 1), image)
        ways["oneDNN"] = lambda: fused_convolution(
            image, packed, bias, (0, 0), (1, 1), relu=False, shortcut=None
        )
    return 2.0 * side**3, ways


def bandwidth_bytes_per_s(device: torch.device, rounds: int = 5) -> float:
    """Bytes read and written a second by copying a block far larger than any cache."""
    n_bytes = COPIED_BYTES[device.type]
    source = torch.ones(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(rounds):
        _wait(device)
        began = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * n_bytes / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
