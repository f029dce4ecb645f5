"""How the cost of a run grows with the duration and with the number of its videos.

    python -m benchmarks.growth {duration,number} [--device cpu] [--cpu-time]

Prints seconds and clips of runs of three lengths, and the memory of the longer two, as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import official
from benchmarks.figures import Figure, spent_s
from benchmarks.whole import FirstBatch
from tests.builders.resident import PeakMemory
from tests.builders.videos import make_video, repeat_video
from tspcli.core.devices import resolve_device
from tspcli.encoders import load_encoder
from tspcli.extraction import extract
from tspcli.sampling import Sampling

Clock = Callable[[], float]
Kind = tuple[int, int]
"""How many videos, of how many seconds."""
KINDS: dict[str, tuple[Kind, Kind, Kind]] = {
    "duration": ((1, 30), (1, 300), (1, 3000)),
    "number": ((12, 2), (120, 2), (1200, 2)),
}


class Growth(NamedTuple):
    """Runs of three lengths, each about ten times the one before.

    Attributes:
        points: Seconds from the first batch to the end, and clips done in them.
        peaks_mb: Peak memory of the middle and the longest, its decode process included; each of
            the first such run, before which none was longer.
    """

    points: list[tuple[float, int]]
    peaks_mb: list[float]

    @property
    def power(self) -> float:
        """p of seconds = a + b * clips ** p; NaN if a longer run took less time.

        The differences know nothing of ``a``, which is what ending a run takes.
        """
        (low_s, low), (mid_s, mid), (high_s, high) = self.points
        if not low_s < mid_s < high_s:
            return math.nan
        return math.log((high_s - mid_s) / (mid_s - low_s)) / math.log((high - mid) / (mid - low))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(KINDS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    options = parser.parse_args()
    if options.cpu_time:
        torch.set_num_threads(1)
    clock = spent_s if options.cpu_time else time.perf_counter
    print(json.dumps(measure(KINDS[options.what], resolve_device(options.device), clock)))


def figures(device: torch.device, clock: Clock) -> list[Figure]:
    """Powers of the cost and memory, by duration and by number, and what a video costs.

    Each in a process of its own, which has held neither larger encoders nor longer runs.
    """
    options = ["--device", str(device), *(["--cpu-time"] if clock is spent_s else [])]
    found: dict[str, Growth] = {}
    for what in KINDS:
        done = official.run_python("-m", "benchmarks.growth", what, *options)
        found[what] = Growth(*json.loads(done.stdout))
    rows = []
    for what, growth in found.items():
        words = "number of videos" if what == "number" else what
        said = ", ".join(f"{clips} clips in {seconds:.2f} s" for seconds, clips in growth.points)
        rows.append(
            Figure(
                "extract", f"cost grows with the {words} to the power", growth.power,
                target="1 ± 0.03", met=abs(growth.power - 1) <= 0.03, note=said,
            )
        )  # fmt: skip
        tenth_mb, all_mb = growth.peaks_mb
        rows.append(
            Figure.below(
                "extract", f"memory at ten times the {words}", all_mb / tenth_mb, 1.1, "times",
                note=f"{tenth_mb:.0f} and {all_mb:.0f} MB, decode process included",
            )
        )  # fmt: skip
    (long_s, long_clips), (many_s, many_clips) = (growth.points[-1] for growth in found.values())
    a_video = Sampling().n_clips(60)
    besides_s = (many_s / many_clips - long_s / long_clips) * a_video
    rows.append(Figure.below("extract", "a video besides its frames", 1000 * besides_s, 50, "ms"))
    return rows


def measure(kinds: Sequence[Kind], device: torch.device, clock: Clock, turns: int = 2) -> Growth:
    """Runs of three kinds, with the smallest encoder there is, so that everything else shows.

    Those of a kind lie before and after the one that takes ten times as long, and their means
    count. Not the fastest or median run: a short one has moments that a long one never has, and
    what a pause of the machine costs is in the long one, too.
    """
    encoder = load_encoder("tiny", device=device)
    low, middle, high = kinds
    taken: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    n_clips: dict[Kind, int] = {}
    peaks_mb: dict[Kind, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shortest = make_video(folder / "shortest.mp4", fps=30, n_frames=30 * low[1])
        videos = {
            seconds: repeat_video(shortest, folder / f"{seconds}.mp4", seconds // low[1])
            for seconds in {seconds for _, seconds in kinds}
        }

        def run(kind: Kind) -> float:
            count, seconds = kind
            place = Path(tempfile.mkdtemp(dir=folder))
            for index in range(count):
                (place / f"v{index}.mp4").symlink_to(videos[seconds])
            reporter = FirstBatch(clock)
            out = folder / f"{place.name}.h5"
            with PeakMemory() as peak:
                report = extract(place, out, encoder=encoder, workers=1, reporter=reporter)
            ended_s = clock()
            assert not report.failed
            assert reporter.at_s is not None
            peaks_mb.setdefault(kind, peak.all_mb)
            n_clips[kind] = report.n_clips - reporter.n_clips
            return ended_s - reporter.at_s

        run(middle)  # The first run of all is slower.
        for _ in range(turns):
            for kind in (low, *[middle] * 3, high, *[middle] * 3):
                taken[kind].append(run(kind))
    points = [(statistics.mean(taken[kind]), n_clips[kind]) for kind in kinds]
    return Growth(points, [peaks_mb[middle], peaks_mb[high]])


if __name__ == "__main__":
    main()
