"""Every part of the product beside its roof and its target, in one run.

    python -m benchmarks [--device auto] [--parts frames,encoder,extract,training,store,start]
                         [--official CHECKOUT] [--videos FILE ...] [--quick]
                         [--json FILE] [--markdown FILE]

``make bench`` and ``make bench-gpu`` run it. CHECKOUT is a clone of the repository of the TSP paper
(github.com/HumamAlwassel/TSP), whose script is then run on the same videos and weights. Without
videos one is generated: 480 x 360, 30 frames a second, H.264 with B-frames.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import cv2

from benchmarks.figures import NOT_MEASURED, Figure, keep, machine, markdown, show, spent_s
from tspcli.core.devices import resolve_device
from tspcli.core.text import first_line

PARTS = ("frames", "encoder", "extract", "training", "store", "start")
GPU_TARGETS = (
    ("encoder", "r2plus1d_34 on an H200, bf16, share of the matmul rate", "at least 0.55"),
    ("extract", "end to end on a GPU, share of the slower of decoder and encoder", "at least 0.9"),
    ("extract", "device idle when decoding is not the limit", "under 5 %"),
    ("extract", "ActivityNet (650 h of video) on one H200 with 16 cores", "under 1 h"),
    (
        "frames",
        "hardware decoding, beside PyAV, by one process and by one a core",
        "at least 1 times",
    ),
    ("training", "from the clip cache on a GPU, share of the step alone", "at least 0.9"),
)


LOADER_NOTE = "loader processes read ahead, as in a run; 0.9 counts as device-bound"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbones", default="r2plus1d_34,r2plus1d_18")
    parser.add_argument("--official", type=Path, metavar="CHECKOUT")
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    parser.add_argument("--seconds", type=int, default=20, help="length of the generated video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, the smallest backbone")
    parser.add_argument("--json", type=Path, help="append a line a figure")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time of one thread, where others use the machine too",
    )
    options = parser.parse_args()
    unknown = [name for name in options.parts.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    options.clock = time.perf_counter
    if options.cpu_time:
        import torch

        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
        options.clock = spent_s
    if options.quick:
        options.rounds, options.backbones, options.seconds = 1, "r2plus1d_18", 10
    cv2.setNumThreads(1)
    print(machine(), flush=True)
    found: list[Figure] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        parts = plan(options, Path(folder))
        for name in options.parts.split(","):
            began = time.perf_counter()
            print(f"\n== {name}", flush=True)
            figures, fault = attempt(name, parts[name])
            broken += fault
            show(figures)
            print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
            found += figures
            if options.json is not None:
                keep(figures, options.json)
    if options.device == "cpu":
        found += [Figure.missing(p, what, t, "make bench-gpu") for p, what, t in GPU_TARGETS]
    table = markdown(found)
    print(f"\n{table}")
    if options.markdown is not None:
        options.markdown.write_text(f"{machine()}\n\n{table}", encoding="utf-8")
    if resolve_device(options.device).type == "cuda" and "encoder" in options.parts.split(","):
        show_layers(options)
    missed = [figure.what for figure in found if figure.met is False]
    print(f"{sum(f.met is True for f in found)} targets met, {len(missed)} not, "
          f"{sum(f.value is None for f in found)} {NOT_MEASURED}.")  # fmt: skip
    if broken:
        raise SystemExit(f"These parts ended early: {', '.join(broken)}.")


def attempt(name: str, part: Callable[[], list[Figure]]) -> tuple[list[Figure], list[str]]:
    """A part's figures; if it fails, a line that says so and its name: the others go on."""
    try:
        return part(), []
    except Exception as error:  # whatever it is, it is shown, and the command fails in the end
        traceback.print_exc()
        words = f"{type(error).__name__}: {first_line(error)}"
        return [Figure.missing(name, f"all of the part {name}", "", words)], [name]


def show_layers(options: argparse.Namespace) -> None:
    """Where the encoder's time goes, below the table; it is no figure and has no target."""
    from benchmarks import layers

    batch = 4 if options.device == "cpu" else 64
    for name in options.backbones.split(","):
        try:
            words = layers.report(
                name, batch, resolve_device(options.device), "bf16", options.rounds
            )
        except (RuntimeError, SystemExit) as error:
            words = f"{name}, convolution by convolution: {NOT_MEASURED}: {error}\n"
        print(f"\n{words}", flush=True)
        if options.markdown is not None:
            with options.markdown.open("a", encoding="utf-8") as file:
                file.write(f"\n{words}")


def plan(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], list[Figure]]]:
    """What each part runs; imports belong to the parts that need them."""
    from benchmarks.decode import generate
    from tests.builders.videos import repeat_video

    device = resolve_device(options.device)
    backbones = options.backbones.split(",")
    videos = [path.resolve() for path in options.videos]
    if not videos:
        videos = [generate(folder / "generated.mp4", options.seconds)]

    def frames() -> list[Figure]:
        from benchmarks import frames as part

        long = videos
        if not options.videos and not options.quick:
            # Longer than for the encoders: opening a file is not what is measured.
            long = [repeat_video(videos[0], folder / "long.mp4", 3)]
        return [f for video in long for f in part.measure(video, options.rounds, device)]

    def encoder() -> list[Figure]:
        from benchmarks import encoders as part
        from benchmarks import libraries

        figures = part.measure(backbones, device, options.rounds, options.clock)
        if device.type == "cpu" and not options.quick:
            for name in libraries.LIBRARIES:
                figures += libraries.measure(name, libraries.BATCH, options.rounds, options.clock)
        return figures

    def extract() -> list[Figure]:
        from benchmarks import growth, whole

        figures = [
            figure
            for name in backbones
            for figure in whole.measure(videos, name, device, options.official, options.clock)
        ]
        if device.type == "cuda":
            # As long as ActivityNet's videos are on average.
            long = (
                videos
                if options.videos
                else [repeat_video(videos[0], folder / "two-minutes.mp4", 6)]
            )
            figures += whole.on_gpu(long, whole.random_weights(backbones[0]), device)
        return figures if options.quick else figures + growth.figures(device, options.clock)

    def training() -> list[Figure]:
        from benchmarks import training as part

        settings = argparse.Namespace(
            backbone=backbones[-1],
            batch=2 if device.type == "cpu" else 32,
            # Steps take five seconds each on a CPU and hardly vary.
            steps=max(1, options.rounds - 1) if device.type == "cpu" else options.rounds,
        )
        with tempfile.TemporaryDirectory() as inner:
            rows = part.run(settings, device, videos[0], Path(inner))
        return training_figures(rows)

    def store() -> list[Figure]:
        from benchmarks import whole

        return whole.store(options.rounds)

    def start() -> list[Figure]:
        from benchmarks import whole

        return whole.start_up()

    return {
        "frames": frames,
        "encoder": encoder,
        "extract": extract,
        "training": training,
        "store": store,
        "start": start,
    }


def training_figures(rows: list[dict[str, float | str]]) -> list[Figure]:
    """The training benchmark's rows; reading from videos and keeping up with the step have bars."""
    figures = []
    for row in rows:
        name, ratio = str(row["part"]), float(row["ratio"])
        if "of_step" in row:
            what, share = f"{name}, share of the step alone", float(row["of_step"])
            figures.append(Figure.at_least("training", what, share, 0.9, "", note=LOADER_NOTE))
        if name.endswith("literal"):
            continue
        note = f"{float(row['clips_per_s']):.2f} clips/s"
        what = f"{name}, beside the literal loop"
        if name == "reading: from videos":
            figure = Figure.at_least("training", what, ratio, 2, "times", note=note)
        else:
            figure = Figure("training", what, ratio, "times", note=note)
        if "roof" in row:
            roof = float(row["roof"]) * ratio / float(row["clips_per_s"])
            figure = figure.under(roof, str(row["roof_name"]))
        figures.append(figure)
    return figures


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
