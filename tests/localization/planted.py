"""Stores of made-up features in which actions are planted, and their annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tspcli.annotations import AnnotatedVideo, Annotations, Segment
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, write_store

SAMPLING = Sampling()
LABELS = ("jump", "run", "throw")


def plant(
    path: Path,
    n_videos: int,
    seed: int,
    *,
    dim: int = 16,
    subset: str = "training",
    weights_sha256: str = "0" * 64,
    duration_range_s: tuple[float, float] = (40.0, 120.0),
) -> Annotations:
    """Write a store of noise on which each action adds its class's direction; return the actions.

    The directions are the same for every seed, so one store can be learned from and another one,
    of other videos, be searched.
    """
    directions = np.random.default_rng(99).normal(size=(len(LABELS), dim))
    rng = np.random.default_rng(seed)
    annotations = Annotations()
    videos = []
    stride_s, clip_s = float(SAMPLING.stride_s), float(SAMPLING.clip_duration_s)
    for index in range(n_videos):
        name = f"{subset}{index}"
        duration_s = float(rng.uniform(*duration_range_s))
        n_rows = int((duration_s - clip_s) / stride_s) + 1
        center_s = np.arange(n_rows) * stride_s + clip_s / 2
        rows = rng.normal(scale=0.5, size=(n_rows, dim))
        segments = []
        time_s = float(rng.uniform(2, 10))
        while time_s + 6 < duration_s and len(segments) < 4:
            end_s = min(time_s + float(rng.uniform(5, 25)), duration_s)
            label = int(rng.integers(len(LABELS)))
            rows[(center_s >= time_s) & (center_s <= end_s)] += directions[label]
            segments.append(Segment(time_s, end_s, LABELS[label]))
            time_s = end_s + float(rng.uniform(5, 20))
        videos.append((f"v_{name}", rows.astype(np.float32), {"duration_s": duration_s}))
        annotations[name] = AnnotatedVideo(tuple(segments), duration_s, subset)
    metadata = StoreMetadata.build(
        sampling=SAMPLING,
        encoder={"backbone": "planted", "weights": "none", "weights_sha256": weights_sha256},
    )
    write_store(path, videos, metadata)
    return annotations
