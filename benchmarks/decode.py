"""How fast frames are decoded, selected and scaled, beside decoding alone.

Every row is measured in the same run, the rows taking turns, in processor time of all threads
(which other users of the machine disturb less) on one core; the median is given. The ratios count.

    python benchmarks/decode.py [VIDEO …] [--repeats 5] [--out decode.jsonl]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DECODERS, is_installed, open_source, sampled_frames
from tspcli.video.decoders.pyav_source import PyavSource

SPEC = FrameSpec(ResizeSpec(128, 171))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("videos", nargs="*", type=Path, help="further videos to measure")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60, help="length of the generated video")
    parser.add_argument("--out", type=Path, help="file to append JSON lines to")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        generated = generate(Path(folder) / "generated-360p.mp4", arguments.seconds)
        for path in [generated, *arguments.videos]:
            report(path, measure(path, arguments.repeats), arguments.out)


def measure(path: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """Processor seconds for one pass over a video, of every way to read it."""
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "decode alone": lambda: decode_alone(path),
        "pyav, all frames decoded": lambda: sample(PyavSource(str(path), skip_unwanted=False)),
        "pyav, fp32 frames": lambda: sample(
            open_source(path, "pyav"), FrameSpec(ResizeSpec(128, 171), dtype="float32")
        ),
        "pyav, stride of two clips": lambda: sample(
            open_source(path, "pyav"), sampling=Sampling(stride=32)
        ),
    }
    for name in DECODERS:
        if is_installed(name) and not DECODERS[name].on_gpu:
            ways[name] = lambda name=name: sample(open_source(path, name))  # type: ignore[misc]  # mypy: no type for name=
    rows: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, run in ways.items():
            started = time.process_time()
            rows[name] = run()
            times[name].append(time.process_time() - started)
    alone_s = statistics.median(times["decode alone"][1:])
    for name, row in rows.items():
        # The first turn warms caches up.
        row["seconds"] = statistics.median(times[name][1:])
        row["source_frames_per_s"] = row["n_frames"] / row["seconds"]
        row["of_decode_alone"] = alone_s / row["seconds"]
    return rows


def decode_alone(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        n_frames = sum(1 for _ in container.decode(stream))
    return {"n_frames": n_frames, "n_decoded": n_frames, "n_sampled": 0}


def sample(source: Any, spec: FrameSpec = SPEC, sampling: Sampling | None = None) -> dict[str, Any]:
    out = np.empty((*spec.output_shape(source.info.height, source.info.width), 3), spec.dtype)
    n_sampled = 0
    with source:
        frames = sampled_frames(source, sampling or Sampling())
        for sampled in frames:
            sampled.frame.scaled(spec, out=out)
            n_sampled += 1
    return {
        "n_frames": frames.n_frames,
        "n_decoded": source.n_decoded,
        "n_sampled": n_sampled,
    }


def report(path: Path, rows: dict[str, dict[str, Any]], out: Path | None) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        rate = float(stream.average_rate or 0)
    print(f"\n{path.name}: {size}, {rate:.2f} fps")
    print(f"{'':28}{'frames/s':>10}{'of alone':>10}{'decoded':>9}{'sampled':>9}")
    for name, row in rows.items():
        print(
            f"{name:28}{row['source_frames_per_s']:10.0f}{row['of_decode_alone']:10.2f}"
            f"{row['n_decoded']:9}{row['n_sampled']:9}"
        )
    if out is not None:
        with out.open("a") as file:
            for name, row in rows.items():
                line = {"benchmark": "decode", "video": path.name, "size": size, "way": name}
                file.write(json.dumps(line | row) + "\n")


def generate(path: Path, seconds: int, size: tuple[int, int] = (480, 360)) -> Path:
    """30 fps, x264's defaults (B-frames, 250 frames a group): moving texture and noise."""
    width, height = size
    rng = np.random.default_rng(0)
    # Low frequencies with some grain: about the bits a frame that real footage takes.
    small = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    canvas = cv2.resize(small, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(30 * seconds):
            x, y = (int((240 + 200 * f(index / 90)) * width / 480) for f in (np.sin, np.cos))
            picture = canvas[y // 2 : y // 2 + height, x : x + width].astype(np.int16)
            if index % 2 == 0:
                grain = rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
            rgb = np.clip(picture + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    sys.exit(main())
