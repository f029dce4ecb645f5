"""Extracts one video with an encoder that is made slow; prints the peak memory."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tspcli.encoders import load_encoder
from tspcli.extraction import Observer, Progress, extract

torch.set_num_threads(1)


class Stop(Observer):
    """Ends the run after some clips, as Ctrl-C would."""

    def __init__(self, after_clips: int) -> None:
        self.after_clips = after_clips
        self.clips = 0

    def progressed(self, progress: Progress) -> None:
        self.clips = progress.n_clips
        if self.clips >= self.after_clips:
            raise KeyboardInterrupt


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


def main(video: str, out: str, decoder: str, sleep_s: float, n_clips: int) -> None:
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    real = encoder.start

    def slow(clips: torch.Tensor) -> Callable[[], torch.Tensor]:
        time.sleep(sleep_s)
        return real(clips)

    encoder.start = slow  # type: ignore[method-assign]  # of this encoder alone
    peak = own = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak, own
        while not ended.wait(0.05):
            peak = max(peak, resident_mb(os.getpid()))
            own = max(own, resident_mb(os.getpid(), descendants=False))

    watcher = threading.Thread(target=watch)
    watcher.start()
    observer = Stop(n_clips)
    try:
        extract(
            video, out, encoder=encoder, observer=observer, decoder=decoder, workers=1, stride=1
        )
    except KeyboardInterrupt:
        pass
    finally:
        ended.set()
        watcher.join()
    print(json.dumps({"peak_mb": peak, "main_mb": own, "clips": observer.clips}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))
