"""Reading training clips: from the clip cache beside seeking in the videos.

    python benchmarks/clip_cache.py [--seconds 60] [--clips 60] [--videos FILE ...]

Renders videos of three sizes, and takes yours, encoded again at 30 frames a second with a key
frame every 250 (x264's own defaults); builds the cache with each codec, and reads the same random
clips of a video from each, in turns, in one process. Times are processor time, which other programs
disturb least; files are in memory, so the disk does not count. The literal reader decodes as the
published training code does: seek to the key frame before the clip, decode to its end, take every
second frame, scale with torch. What is rendered is easier to decode than real video of its size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from reproduction.synthetic import SyntheticVideo, render_video
from tspcli.pretraining.clip_cache import CachedClips, CacheSettings, build_cache, cache_file
from tspcli.pretraining.clip_cache_file import CODECS, VideoClips
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec

SAMPLING = Sampling()
SIZES = ((96, 128), (240, 320), (360, 480))
"""(height, width) of the rendered videos; the first is that of the rendered data set."""
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
    parser.add_argument("--seconds", type=float, default=60.0, help="of each video")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(
        "| video | reader | ms a clip | times seeking | times literal | GB an hour | worst pixel |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for height, width in SIZES:
            video = folder / f"rendered-{width}x{height}.mp4"
            plan = SyntheticVideo("rendered", 1, options.seconds, (), height=height, width=width)
            render_video(plan, video, gop=250)
            rows += compare(video, folder, options.clips)
        for path in options.videos:
            rows += compare(encode_again(path, folder, options.seconds), folder, options.clips)
    print(json.dumps(rows))


def compare(video: Path, folder: Path, clips: int) -> list[dict[str, object]]:
    """Read the same clips of one video by every reader."""
    readers: dict[str, Callable[[int], object]] = {
        "literal": lambda start: literal_clip(video, start / 15),
        "seeking": partial(VideoClips([video], SAMPLING, SPEC).read, 0),
    }
    sizes, errors = {}, {}
    n_samples = 0
    for codec in CODECS:
        place = folder / codec
        report = build_cache([video], place, CacheSettings(SAMPLING, SPEC, codec), workers=1)
        name = f"cache {codec}"
        sizes[name], errors[name] = report.gigabytes_an_hour, report.max_error
        readers[name] = partial(CachedClips([cache_file(place, video)], 16).read, 0)
        n_samples = round(report.video_s * 15)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in readers}
    for read in readers.values():
        read(0)
    for _ in range(clips):
        start = int(rng.integers(n_samples - 17))
        for name, read in readers.items():
            began = time.process_time()
            read(start)
            times[name].append(time.process_time() - began)
    means = {name: statistics.fmean(taken) for name, taken in times.items()}
    rows: list[dict[str, object]] = []
    for name, mean in means.items():
        size = f"{sizes[name]:.2f}" if name in sizes else ""
        by_seeking, by_literal = means["seeking"] / mean, means["literal"] / mean
        print(
            f"| {video.stem} | {name} | {1e3 * mean:.2f} | {by_seeking:.1f} | {by_literal:.1f} | "
            f"{size} | {errors.get(name, '')} |"
        )
        rows.append(
            {
                "video": video.stem,
                "reader": name,
                "ms": 1e3 * mean,
                "times_seeking": by_seeking,
                "times_literal": by_literal,
                "gb_per_hour": sizes.get(name),
                "max_error": errors.get(name),
            }
        )
    return rows


if __name__ == "__main__":
    main()
