"""``tsp extract`` of a folder with a small encoder that is made slow, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tspcli.cli.main import entry
from tspcli.core.stop import Stopper
from tspcli.encoders import Encoder
from tspcli.extraction import encode_worker
from tspcli.extraction.transports import ChildTransport

torch.set_num_threads(1)


def slow_down(seconds: float, stuck_with: Path | None = None) -> None:
    """Let every batch take longer; hang in the one behind the first part of a store, and say so."""
    real = Encoder.encode_async

    def slow(self: Encoder, clips: torch.Tensor) -> Callable[[], torch.Tensor]:
        if stuck_with and list(stuck_with.parent.glob("*.parts/*.part")):
            stuck_with.with_suffix(".hangs").touch()
            # In C without a way in for Python's signal handlers, as a long convolution is.
            libc = ctypes.CDLL(None)
            for _ in range(100):
                libc.usleep(1_000_000)
        time.sleep(seconds)
        return real(self, clips)

    Encoder.encode_async = slow  # type: ignore[method-assign]  # in this process alone


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Be the process of a worker that is slow."""
    slow_down(0.15)
    encode_worker.main(socket_fd, lifeline_fd)


def tell_how_long_stopping_takes() -> None:
    """Write the seconds from the first signal to the exit to stderr, by this process's clock."""
    heard, leave, told_s = Stopper.heard, os._exit, [0.0]

    def hear(self: Stopper, number: int) -> None:
        told_s[0] = told_s[0] or time.monotonic()
        heard(self, number)

    def timed_leave(status: int) -> None:
        if told_s[0]:
            line = f"left after {time.monotonic() - told_s[0]:.2f} s\n"
            os.write(sys.__stderr__.fileno(), line.encode())  # type: ignore[union-attr]
        leave(status)

    Stopper.heard = hear  # type: ignore[method-assign]  # in this process alone
    os._exit = timed_leave  # type: ignore[assignment]


def run(videos: str, out: str, *options: str) -> None:
    """Be ``tsp extract``, slow unless ``--fast``."""
    tell_how_long_stopping_takes()
    if "--fast" not in options:
        slow_down(0.15, Path(out) if "--stuck" in options else None)
        ChildTransport.module = "tests.extraction.slow_extract"
    sys.argv = ["tsp", *words(videos, out), "--device", "cpu,cpu" if "--two" in options else "cpu"]
    entry()


def words(videos: str, out: str) -> list[str]:
    """The command that is slowed down."""
    arguments = ["extract", "--videos", videos, "--out", out, "--weights", "random"]
    arguments += ["--backbone", "tiny", "--seed", "1", "--workers", "2", "--batch-size", "4"]
    return [*arguments, "--stride", "8"]
