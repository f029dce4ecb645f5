"""Whole extraction beside the plain way: one clip after another, each sought, decoded, run alone.

    python -m benchmarks.extract [VIDEO ...] [--backbone r2plus1d_18] [--stride 16] [--runs 3]

Both see the same videos and the same random weights; each figure is the median of several runs that
alternate, so that a machine whose speed drifts slows both. Without videos one is generated: 30 s of
480 x 360 at 30 fps, H.264. Prints a table and, with --json, a line for a log.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from tests.builders.videos import make_video
from tests.extraction import reference
from tspcli.encoders import Encoder, load_encoder
from tspcli.extraction import extract
from tspcli.store import open_store


def clip_by_clip(path: Path, encoder: Encoder, stride: int) -> np.ndarray:
    """Seek to each clip, decode it, preprocess it, run it alone."""
    times, time_base, end = reference.decode_times(path)
    rows = []
    with av.open(str(path)) as container, torch.inference_mode():
        stream = container.streams.video[0]
        for clip in reference.official_clips(times, end, stride):
            wanted = {times[index] for index in clip}
            found: dict[Fraction, np.ndarray] = {}
            container.seek(int(times[clip[0]] / time_base), stream=stream)
            for frame in container.decode(stream):
                time_s = frame.pts * time_base
                if time_s in wanted:
                    found[time_s] = frame.to_ndarray(format="rgb24")
                if time_s >= times[clip[-1]]:
                    break
            frames = [found[times[index]] for index in clip]
            rows.append(encoder.module.features(reference.preprocess(frames)[None])[0].numpy())
    return np.stack(rows)


def measure(videos: list[Path], backbone: str, stride: int, runs: int) -> dict[str, Any]:
    """Seconds of both ways, the number of clips, and how far their rows are apart."""
    encoder = load_encoder("random", backbone=backbone, seed=0, device="cpu")
    plain_s, ours_s, errors = [], [], []
    clips = 0
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            started = time.perf_counter()
            expected = {path.stem: clip_by_clip(path, encoder, stride) for path in videos}
            plain_s.append(time.perf_counter() - started)
            out = Path(folder) / f"{run}.h5"
            started = time.perf_counter()
            extract(videos, out, encoder=encoder, stride=stride)
            ours_s.append(time.perf_counter() - started)
            clips = sum(len(rows) for rows in expected.values())
            with open_store(out) as store:
                errors += [
                    reference.relative_error(store[key].rows, rows)
                    for key, rows in expected.items()
                ]
    plain, ours = statistics.median(plain_s), statistics.median(ours_s)
    return {
        "backbone": backbone,
        "stride": stride,
        "clips": clips,
        "plain_clips_per_s": clips / plain,
        "tsp_clips_per_s": clips / ours,
        "speedup": statistics.median(a / b for a, b in zip(plain_s, ours_s, strict=True)),
        "largest_relative_error": max(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.videos
        if not videos:
            videos = [Path(folder) / "generated.mp4"]
            make_video(videos[0], fps=30, n_frames=900, width=480, height=360)
        for backbone in arguments.backbone or ["r2plus1d_18"]:
            figures = measure(videos, backbone, arguments.stride, arguments.runs)
            if arguments.json:
                print(json.dumps(figures))
            else:
                print(
                    f"{backbone}, stride {arguments.stride}, {figures['clips']} clips: "
                    f"plain {figures['plain_clips_per_s']:.2f} clips/s, "
                    f"tsp {figures['tsp_clips_per_s']:.2f} clips/s, {figures['speedup']:.2f} times "
                    f"faster; rows agree to {figures['largest_relative_error']:.1e}"
                )


if __name__ == "__main__":
    main()
