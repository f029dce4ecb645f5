"""Memory that the C allocator keeps instead of giving it back after every batch.

A layer's output of a batch is tens of megabytes. glibc takes such blocks from the system one by one
and gives each back when it is freed, so that every batch pays for the same pages again: on a CPU a
fifth of the encoder's time at four clips a batch.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST = (1 << 31) - 1
_KEPT_BLOCK_BYTES = 1 << 30
_USUAL_BLOCK_BYTES = 32 << 20
_USUAL_TRIM_BYTES = 64 << 20
_USUAL_BLOCKS = 65536
"""Where glibc's own thresholds, which adapt to the program, end up at most."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory stay with this process until the context ends; does nothing without glibc.

    A user who tuned the allocator through its environment is not overruled.
    """
    libc = None if _is_tuned() else _glibc()
    if libc is None:
        yield
        return
    # Older versions refuse a threshold above 32 MiB; then no block at all is taken on its own.
    if not libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES):
        libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _USUAL_BLOCK_BYTES)
        libc.mallopt(_M_MMAP_MAX, _USUAL_BLOCKS)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_BYTES)
        libc.malloc_trim(0)


def _is_tuned() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library if it is glibc and answers malloc itself, else None."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (raises if it is another)
        libc.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
        libc.malloc_trim.argtypes = (ctypes.c_size_t,)
    except (OSError, TypeError, AttributeError):
        return None
    return libc
