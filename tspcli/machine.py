"""What the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may use: installed, or the cgroup's limit; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for file in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            memory = min(memory, int(file.read_text()))
        except (OSError, ValueError):
            continue
    return memory
