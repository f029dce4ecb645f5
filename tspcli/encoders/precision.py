"""In which arithmetic a training computes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from tspcli.errors import UsageError


@contextmanager
def process_arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Allow exactly the arithmetic asked for, and put torch's settings back afterwards."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with ExitStack() as stack:
        if device.type == "cuda":
            allowed = precision != "fp32"
            matmul.allow_tf32 = allowed
            stack.callback(setattr, matmul, "allow_tf32", before)
            stack.enter_context(
                torch.backends.cudnn.flags(
                    enabled=True, benchmark=True, deterministic=False, allow_tf32=allowed
                )
            )
        elif precision == "bf16":
            # oneDNN's bfloat16 weight gradient of a 3x1x1 convolution over two frames is NaN or
            # whatever lay in memory (torch 2.15, AVX-512), and two frames are what the last stage
            # of the video ResNets has. torch's own convolutions are slow, but right.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``auto`` as bf16 on devices that compute in it, else fp32.

    Raises:
        UsageError: If the device lacks what was asked for.
    """
    if wanted == "auto":
        if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp32"
    if wanted == "tf32" and device.type != "cuda":
        raise UsageError("tf32 is an arithmetic of CUDA devices.", remedy="Use fp32 or bf16.")
    return wanted
