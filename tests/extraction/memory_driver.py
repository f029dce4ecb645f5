"""Extracts one video with an encoder that is made slow; prints the peak memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from tests.builders.resident import PeakMemory
from tspcli.core.progress import Reporter
from tspcli.encoders import load_encoder
from tspcli.extraction import extract

torch.set_num_threads(1)


class Stop(Reporter):
    """Ends the run after some clips, as Ctrl-C would."""

    def __init__(self, after_clips: int) -> None:
        self.after_clips = after_clips
        self.clips = 0

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self.clips = figures.n_clips
        if self.clips >= self.after_clips:
            raise KeyboardInterrupt


def main(video: str, out: str, decoder: str, sleep_s: float, n_clips: int) -> None:
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    real = encoder.encode_async

    def slow(clips: torch.Tensor) -> Callable[[], torch.Tensor]:
        time.sleep(sleep_s)
        return real(clips)

    encoder.encode_async = slow  # type: ignore[method-assign]  # of this encoder alone
    reporter = Stop(n_clips)
    with PeakMemory() as peak, suppress(KeyboardInterrupt):
        extract(
            video, out, encoder=encoder, reporter=reporter, decoder=decoder, workers=1, stride=1
        )
    print(json.dumps({"peak_mb": peak.all_mb, "main_mb": peak.main_mb, "clips": reporter.clips}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))
