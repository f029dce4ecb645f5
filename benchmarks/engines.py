"""One device, two device processes and a Ray cluster of this machine beside each other.

    python -m benchmarks.engines [--videos 40] [--frames 150] [--backbone tiny] [--runs 2]

The same videos, generated, with the same random weights; the ways take turns. For each: seconds
until the encoder is loaded, seconds from there until the last video is safe, processor seconds of
the main process a video, and whether its rows are those of one device, bit for bit. All share one
machine's cores, so that no way can be faster than the first by more than its own overlap: the table
tells what a way costs, not what more machines bring.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.builders.videos import make_video
from tspcli.core.progress import Reporter
from tspcli.extraction import ExtractConfig, extract
from tspcli.store import open_store


@dataclass
class Clock(Reporter):
    """When the encoder was loaded, and the main process's time from there."""

    began: float = field(default_factory=time.perf_counter)
    loaded: float = 0.0
    processor: float = 0.0

    def start(self, task: str, total: int, done: int = 0, about: object = "") -> None:
        self.loaded = time.perf_counter()
        self.processor = time.process_time()


@dataclass
class Figures:
    """The runs of one way."""

    start_s: list[float] = field(default_factory=list)
    run_s: list[float] = field(default_factory=list)
    main_s: list[float] = field(default_factory=list)
    same: bool = True


def run_once(folder: Path, out: Path, config: ExtractConfig, figures: Figures) -> None:
    clock = Clock()
    report = extract(folder, out, config=config, reporter=clock)
    assert not report.failed
    figures.start_s.append(clock.loaded - clock.began)
    figures.run_s.append(report.elapsed_s)
    figures.main_s.append((time.process_time() - clock.processor) / len(report.videos))


def is_same(path: Path, expected: Path) -> bool:
    """Whether two stores hold the same videos with the same rows."""
    with open_store(path) as one, open_store(expected) as other:
        return list(one) == list(other) and all(
            np.array_equal(one[key].rows, other[key].rows) for key in one
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    one = ExtractConfig(weights="random", backbone=options.backbone, seed=1, device="cpu")
    ways = {"one device": one, "two device processes": replace(one, device="cpu,cpu")}
    if not options.no_ray:
        ways["Ray, one node"] = replace(one, engine="ray")
    figures = {name: Figures() for name in ways}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "videos"
        folder.mkdir()
        for number in range(options.videos):
            make_video(folder / f"v{number:03}.mp4", n_frames=options.frames, width=480, height=360)
        for run in range(options.runs):
            outs = {name: Path(place) / f"{run}-{name[:3]}.h5" for name in ways}
            for name, config in ways.items():
                run_once(folder, outs[name], config, figures[name])
                figures[name].same &= is_same(outs[name], outs["one device"])
    print(f"{options.videos} videos of {options.frames} frames, median of {options.runs} runs\n")
    print("| | encoder loaded, s | run, s | beside one device | main process, ms a video | rows |")
    print("|---|---|---|---|---|---|")
    usual = statistics.median(figures["one device"].run_s)
    for name, seen in figures.items():
        run_s = statistics.median(seen.run_s)
        print(
            f"| {name} | {statistics.median(seen.start_s):.1f} | {run_s:.1f} "
            f"| {run_s / usual:.2f} | {statistics.median(seen.main_s) * 1e3:.1f} "
            f"| {'equal' if seen.same else 'DIFFERENT'} |"
        )


if __name__ == "__main__":
    main()
