"""``tsp extract`` of a folder with a small encoder that is made slow. Started as a program."""

from __future__ import annotations

import ctypes
import sys
import time

import torch

from tspcli.cli.main import main
from tspcli.encoders import Encoder
from tspcli.extraction.runners import devices
from tspcli.video.process import ChildProcess

torch.set_num_threads(1)


def slow_down(seconds: float, stuck_after: int) -> None:
    real = Encoder.encode
    count = 0

    def slow(self: Encoder, clips: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == stuck_after:
            # In C without a way in for Python's signal handlers, as a long convolution is.
            libc = ctypes.CDLL(None)
            for _ in range(100):
                libc.usleep(1_000_000)
        time.sleep(seconds)
        return real(self, clips)

    Encoder.encode = slow  # type: ignore[method-assign]  # in this process alone


class SlowDevice(ChildProcess):
    def __init__(self, module: str) -> None:
        super().__init__(f"tests.faults.{module.rpartition('.')[2]}")


if __name__ == "__main__":
    videos, out, *options = sys.argv[1:]
    device = "cpu,cpu" if "--two" in options else "cpu"
    if "--fast" not in options:
        slow_down(0.15, stuck_after=8 if "--stuck" in options else -1)
        devices.ChildProcess = SlowDevice  # type: ignore[misc]  # in this process alone
    arguments = ["extract", "--videos", videos, "--out", out, "--weights", "random"]
    arguments += ["--backbone", "tiny", "--seed", "1", "--workers", "2", "--batch-size", "4"]
    main([*arguments, "--stride", "8", "--device", device])
