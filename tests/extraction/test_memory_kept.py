"""Freed memory stays with the process while videos are encoded, and only then."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """\
import contextlib, resource, sys
import torch
from tspcli.extraction.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
with kept_memory():
    faults()
    inside = faults()
print(inside, faults())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")


def page_faults(**environment: str) -> tuple[int, int]:
    """Pages that five tensors of 64 MiB take from the system: inside of the context, and after."""
    result = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    inside, after = map(int, result.stdout.split())
    return inside, after


@glibc
def test_pages_are_taken_once() -> None:
    inside, after = page_faults()
    # glibc may split what it kept and take one block of the five once more.
    assert after > 4 * 16_384
    assert inside < after / 4


@glibc
def test_the_users_own_tuning_wins() -> None:
    inside, _ = page_faults(MALLOC_MMAP_THRESHOLD_="1000000")
    assert inside > 10_000
