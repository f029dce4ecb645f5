"""The slow reference: one clip after another, every step as the official recipe words it.

Nothing here calls the package's timeline, resize, batching or fast encoders, so that agreement
means something. Decoding is PyAV's, or whatever frames the caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


def decode(path: Path) -> tuple[list[Fraction], list[np.ndarray], Fraction]:
    """All frames of a video: (times in seconds, RGB frames, end of the last in seconds)."""
    times: list[Fraction] = []
    frames: list[np.ndarray] = []
    end = Fraction(0)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            time_base = Fraction(frame.time_base)
            times.append(frame.pts * time_base)
            frames.append(frame.to_ndarray(format="rgb24"))
            end = times[-1] + (frame.duration or 0) * time_base
    if end == times[-1] and len(times) > 1:
        end += (times[-1] - times[0]) / (len(times) - 1)
    return times, frames, end


def decode_times(path: Path) -> tuple[list[Fraction], Fraction, Fraction]:
    """Times of all frames in seconds, the time base, and the end of the last."""
    times: list[Fraction] = []
    end = Fraction(0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.pts is not None:
                times.append(packet.pts * stream.time_base)
                end = max(end, times[-1] + (packet.duration or 0) * stream.time_base)
    return sorted(times), Fraction(stream.time_base), end


def official_clips(
    times: Sequence[Fraction],
    end: Fraction,
    stride: int,
    clip_length: int = 16,
    grid: int = 30,
    step: int = 2,
) -> list[list[int]]:
    """Frame indices of each clip: 30 fps by nearest rounding, every second frame, whole clips."""

    def nearest(time: Fraction) -> int:
        return math.floor(time * grid + Fraction(1, 2))

    first = nearest(times[0])
    ticks = [nearest(time) - first for time in times]
    standardised = []
    current = 0
    for tick in range(nearest(end) - first):
        while current + 1 < len(ticks) and ticks[current + 1] <= tick:
            current += 1
        standardised.append(current)
    samples = standardised[::step]
    n_clips = (len(samples) - clip_length) // stride + 1
    return [samples[i * stride : i * stride + clip_length] for i in range(max(n_clips, 0))]


def preprocess(
    frames: Sequence[np.ndarray],
    size: tuple[int, int] = (128, 171),
    crop: int = 112,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> torch.Tensor:
    """RGB frames (T, H, W, 3) to a clip (3, T, 112, 112), as the official transforms do it."""
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    clip = nn.functional.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    clip = (clip - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)
    top, left = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return clip[:, :, top : top + crop, left : left + crop].permute(1, 0, 2, 3)


def i3d_options(frames: Sequence[np.ndarray]) -> dict[str, Any]:
    """How I3D wants its frames: short side 256, centre 224, values in -1..1."""
    height, width = frames[0].shape[:2]
    short = min(height, width)
    size = (256, int(256 * width / height)) if height == short else (int(256 * height / width), 256)
    return {"size": size, "crop": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3}


@torch.inference_mode()
def features(
    path: Path, module: nn.Module, stride: int = 16, clip_length: int = 16, *, i3d: bool = False
) -> np.ndarray:
    """Features of a video, shape (clips, D), each clip run alone in fp32."""
    times, frames, end = decode(path)
    options = i3d_options(frames) if i3d else {}
    grid = {"grid": 25, "step": 1} if i3d else {}
    rows = [
        module(preprocess([frames[index] for index in clip], **options)[None])[0].numpy()
        for clip in official_clips(times, end, stride, clip_length, **grid)
    ]
    return np.stack(rows)


def relative_error(rows: np.ndarray, expected: np.ndarray) -> float:
    """The largest L2 error of a row, relative to that row's length."""
    error = np.linalg.norm(rows - expected, axis=1)
    return float((error / np.linalg.norm(expected, axis=1)).max())


def error_to_spread(rows: np.ndarray, expected: np.ndarray) -> float:
    """The largest L2 error of a row, relative to the spread of the video's rows around their mean.

    Random networks map all clips close together, so that an error relative to the length of a row
    flatters them.
    """
    spread = np.linalg.norm(expected - expected.mean(axis=0), axis=1)
    return float(np.linalg.norm(rows - expected, axis=1).max() / np.sqrt((spread**2).mean()))
