"""Reading training clips: from the clip cache beside seeking in the videos.

    python benchmarks/clip_cache.py [--seconds 120] [--clips 60] [--videos FILE ...]

Takes your videos, encoded again at 30 frames a second with a key frame every 250 (x264's own
defaults), or renders one; builds the cache with each codec, and reads the same random clips from
each, in turns, in one process. The literal reader decodes as the published training code does: seek
to the key frame before the clip, decode to its end, take every second frame, scale with torch.
What is rendered is easy to decode; real videos say more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from tspcli.config import FrameSpec, ResizeSpec
from tspcli.pretraining.cache import CODECS, CachedClips, CacheSettings, build_cache, cache_file
from tspcli.pretraining.clips import VideoClips
from tspcli.reproduction.synthetic import SyntheticVideo, render_video
from tspcli.timeline import Sampling

SAMPLING = Sampling()
SPEC = FrameSpec(ResizeSpec(height=128, width=171))


def literal_clip(path: Path, start_s: float) -> torch.Tensor:
    """One clip, (3, 16, 128, 171) in 0..1, read as the published training code reads it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first = int(start_s / stream.time_base)
        last = int((start_s + 16 / 15) / stream.time_base)
        container.seek(first, stream=stream, backward=True, any_frame=False)
        frames = []
        for frame in container.decode(stream):
            if frame.pts > last:
                break
            if frame.pts >= first:
                frames.append(frame.to_ndarray(format="rgb24"))
    clip = torch.from_numpy(np.stack(frames)[::2][:16]).permute(3, 0, 1, 2).float() / 255
    return torch.nn.functional.interpolate(clip, size=(128, 171), mode="bilinear")


def encode_again(path: Path, folder: Path, seconds: float) -> Path:
    """A video's frames, over and over until they fill some seconds, with groups of 250 frames."""
    out = folder / f"{path.stem}.mp4"
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.pix_fmt, stream.gop_size = "yuv420p", 250
        stream.options = {"keyint_min": "250", "sc_threshold": "0"}
        left = round(30 * seconds)
        while left > 0:
            with av.open(str(path)) as source:
                for frame in source.decode(video=0):
                    if left == round(30 * seconds):
                        stream.width, stream.height = frame.width, frame.height
                    plain = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")
                    container.mux(stream.encode(plain))
                    left -= 1
                    if left == 0:
                        break
        container.mux(stream.encode())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the rendered video")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    videos = [encode_again(path, folder, options.seconds) for path in options.videos]
    if not videos:
        videos = [folder / "rendered.mp4"]
        plan = SyntheticVideo("rendered", 1, options.seconds, (), height=360, width=480)
        render_video(plan, videos[0], gop=250)
    readers: dict[str, Callable[[int, int], object]] = {
        "literal": lambda v, start: literal_clip(videos[v], start / 15),
        "video": VideoClips(videos, SAMPLING, SPEC).read,
    }
    sizes, errors = {}, {}
    n_samples = []
    for codec in CODECS:
        report = build_cache(
            videos, folder / codec, CacheSettings(SAMPLING, SPEC, codec), workers=1
        )
        files = [cache_file(folder / codec, video) for video in videos]
        cached = CachedClips(files, 16)
        readers[f"cache {codec}"] = cached.read
        sizes[f"cache {codec}"], errors[f"cache {codec}"] = (
            report.gigabytes_an_hour,
            report.max_error,
        )
        for video in range(len(videos)):
            cached.read(video, 0)
        n_samples = [cached._open[video].n_samples for video in range(len(videos))]
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(options.clips):
        video = int(rng.integers(len(videos)))
        start = int(rng.integers(max(n_samples[video] - 17, 1)))
        for name, read in readers.items():
            began = time.perf_counter()
            read(video, start)
            times[name].append(time.perf_counter() - began)
    seeking = statistics.fmean(times["video"])
    print("| reader | ms a clip | clips/s | times seeking | GB an hour | worst pixel of 255 |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name, taken in times.items():
        mean = statistics.fmean(taken)
        row = {
            "reader": name,
            "ms": 1e3 * mean,
            "speedup": seeking / mean,
            "gb_per_hour": sizes.get(name),
            "max_error": errors.get(name),
        }
        rows.append(row)
        size = "" if name not in sizes else f"{sizes[name]:.2f}"
        print(
            f"| {name} | {1e3 * mean:.2f} | {1 / mean:.1f} | {seeking / mean:.1f} | {size} | "
            f"{errors.get(name, '')} |"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
