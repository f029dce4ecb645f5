"""How the cost of a run grows with the duration and with the number of its videos.

    python -m benchmarks.growth [--device cpu] [--cpu-time]

Prints its figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.figures import Figure, spent_s
from benchmarks.whole import FirstBatch
from tests.resident import PeakMemory
from tests.videos import make_video, repeat_video
from tspcli.encoders import load_encoder
from tspcli.encoders.encoder import resolve_device
from tspcli.extraction import extract
from tspcli.timeline import Sampling

Clock = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    options = parser.parse_args()
    if options.cpu_time:
        torch.set_num_threads(1)
    clock = spent_s if options.cpu_time else time.perf_counter
    figures = growth(resolve_device(options.device), clock)
    print(json.dumps([asdict(figure) for figure in figures]))


def growth(device: torch.device, clock: Clock) -> list[Figure]:
    """Exponents of the cost over two decades of duration and number, memory, and a video's cost.

    The encoder is the smallest there is, so that everything else shows.
    """
    encoder = load_encoder("tiny", device=device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Of the first run of each kind, before which none was longer.
        peaks_mb: dict[tuple[int, int], float] = {}
        videos = {
            seconds: make_video(folder / f"{seconds}.mp4", fps=30, n_frames=30 * seconds)
            for seconds in (2, 30)
        }
        for times in (10, 100):
            videos[30 * times] = repeat_video(videos[30], folder / f"{30 * times}.mp4", times)

        def run(count: int, seconds: int) -> tuple[float, int]:
            """Seconds from the first batch to the end, and clips done in them."""
            place = Path(tempfile.mkdtemp(prefix=f"{count}-{seconds}-", dir=folder))
            for index in range(count):
                (place / f"v{index}.mp4").symlink_to(videos[seconds])
            observer = FirstBatch(clock)
            out = folder / f"{place.name}.h5"
            with PeakMemory() as peak:
                report = extract(place, out, encoder=encoder, workers=1, observer=observer)
            peaks_mb.setdefault((count, seconds), peak.all_mb)
            assert not report.failed
            assert observer.at_s is not None
            return clock() - observer.at_s, report.n_clips - observer.n_clips

        def means(kinds: list[tuple[int, int]]) -> list[tuple[float, int]]:
            """Of each kind, whose runs lie before and after those that take ten times as long.

            Not the fastest or median run: a short one has moments that a long one never has, and
            what a pause of the machine costs is in the long one, too.
            """
            found: dict[tuple[int, int], list[tuple[float, int]]] = {kind: [] for kind in kinds}
            low, middle, high = kinds
            run(*middle)  # The first run of all is slower.
            for _ in range(2):
                for kind in (low, *[middle] * 3, high, *[middle] * 3):
                    found[kind].append(run(*kind))
            return [
                (statistics.mean(s for s, _ in found[kind]), found[kind][0][1]) for kind in kinds
            ]

        kinds = {
            "duration": [(1, 30), (1, 300), (1, 3000)],
            "number of videos": [(12, 2), (120, 2), (1200, 2)],
        }
        found = {what: means(runs) for what, runs in kinds.items()}
    figures = [
        Figure("extract", f"cost grows with the {what} to the power", power := _power(points),
               target="1 ± 0.03", met=abs(power - 1) <= 0.03,
               note=", ".join(f"{clips} clips in {seconds:.2f} s" for seconds, clips in points))
        for what, points in found.items()
    ]  # fmt: skip
    for what, (_, *longer) in kinds.items():
        tenth_mb, all_mb = (peaks_mb[kind] for kind in longer)
        figures.append(
            Figure.below(
                "extract", f"memory at ten times the {what}", all_mb / tenth_mb, 1.1, "times",
                note=f"{tenth_mb:.0f} and {all_mb:.0f} MB, decode process included",
            )
        )  # fmt: skip
    long, many = found.values()
    a_clip_s = long[-1][0] / long[-1][1]
    a_video_s = many[-1][0] / many[-1][1] * Sampling().n_clips(60)
    besides_s = a_video_s - a_clip_s * Sampling().n_clips(60)
    figures.append(
        Figure.below("extract", "a video besides its frames", 1000 * besides_s, 50, "ms")
    )
    return figures


def _power(points: list[tuple[float, int]]) -> float:
    """p of seconds = a + b * clips ** p at three points, each about ten times the one before.

    The differences know nothing of ``a``, which is what ending a run takes.
    """
    (low_s, low), (mid_s, mid), (high_s, high) = points
    return math.log((high_s - mid_s) / (mid_s - low_s)) / math.log((high - mid) / (mid - low))


if __name__ == "__main__":
    main()
