"""How much memory a run holds."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class PeakMemory:
    """The most memory that this process held, with its descendants and without, meanwhile.

    Attributes:
        all_mb: Resident memory of all of them.
        main_mb: That of this process alone.
    """

    def __init__(self) -> None:
        self.all_mb = self.main_mb = 0.0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.all_mb = max(self.all_mb, resident_mb(os.getpid()))
            self.main_mb = max(self.main_mb, resident_mb(os.getpid(), descendants=False))


def resident_mb(pid: int, descendants: bool = True) -> float:
    """Resident memory of a process, and of all its descendants, now."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir() if descendants else ():
            for child in (task / "children").read_text().split():
                total += resident_mb(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total
