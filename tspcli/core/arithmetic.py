"""The arithmetic of float32 on CUDA, for everything here that computes with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def cuda_arithmetic(*, tf32: bool, search: bool = False) -> Iterator[None]:
    """Compute on CUDA with TF32 or without, and restore torch's settings afterwards.

    It works whichever of torch's two ways to switch TF32 the program has used before.

    The old switches (``allow_tf32``, ``set_float32_matmul_precision``) set the new ones
    (``fp32_precision``), but raise when read after the new ones were set to something that they
    cannot express. torch's compiler reads the old ones. Both are therefore set through the old, and
    saved and restored separately.

    Args:
        tf32: Whether float32 products may be rounded to TF32.
        search: Whether cuDNN tries its algorithms for each new shape and takes the fastest.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    # torch.get_float32_matmul_precision() compares the CPU's products as well.
    mkldnn: Any = torch.backends.mkldnn
    cpu_matmul = mkldnn.matmul
    parts = (matmul, cudnn.conv, cudnn.rnn, cpu_matmul)
    new = [part.fp32_precision for part in parts]
    old_precision = _read(torch.get_float32_matmul_precision)
    old_matmul = _read(lambda: matmul.allow_tf32)
    old_cudnn = _read(lambda: cudnn.allow_tf32)
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.benchmark_limit
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    cpu_matmul.fp32_precision = "ieee"
    if not tf32:
        # Otherwise a global torch.backends.fp32_precision = "tf32" is inherited.
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, search, False
    try:
        yield
    finally:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.benchmark_limit = before
        if old_precision is not None:
            torch.set_float32_matmul_precision(old_precision)
        else:
            # Where the two disagreed, the old one meant the opposite of the new one.
            matmul.allow_tf32 = new[0] != "tf32" if old_matmul is None else old_matmul
        if old_cudnn is not None:
            cudnn.allow_tf32 = old_cudnn
        for part, value in zip(parts, new, strict=True):
            part.fp32_precision = value


def _read(switch: Callable[[], Any]) -> Any:
    """The value of one of torch's old switches; None if the new ones contradict it."""
    try:
        return switch()
    except RuntimeError:
        return None
