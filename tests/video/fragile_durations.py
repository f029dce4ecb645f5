"""The process that reads durations, with names that kill or stall it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tspcli.video import durations


def main(socket_fd: int, lifeline_fd: int) -> None:
    real = durations.header_duration_ms

    def fragile(path: str) -> int | None:
        name = Path(path).name
        Path(path).with_name(f"started.{os.getpid()}").touch()
        if "kill" in name:
            os.abort()
        if "hang" in name:
            time.sleep(1000)
        return real(path)

    durations.header_duration_ms = fragile
    durations.main(socket_fd, lifeline_fd)
