"""Features with segments in which they differ, to be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tspcli.analysis import foreground_rows
from tspcli.annotations import Segment
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, write_store
from tspcli.store.schema import sampling_attributes

TSP = Sampling()
SEGMENTS = (Segment(16.0, 32.0, "Long jump"), Segment(48.0, 56.0, "<b>Wrap</b>"))


def make_rows(n: int, strength: float, seed: int = 0, sampling: Sampling = TSP) -> np.ndarray:
    """Rows in which foreground and background differ by ``strength``."""
    rng = np.random.default_rng(seed)
    times = np.array([float(sampling.clip_center_s(i)) for i in range(n)])
    rows = rng.normal(size=(n, 48)) + 0.5
    rows += (
        strength * np.where(foreground_rows(times, SEGMENTS), 1, -1)[:, None] * rng.normal(size=48)
    )
    return rows.astype(np.float32)


def make_store(path: Path, videos: dict[str, np.ndarray], sampling: Sampling = TSP) -> Path:
    entries = (
        (k, r, {"warnings": "[]", **sampling_attributes(sampling)}) for k, r in videos.items()
    )
    encoder = {"backbone": "r3d_18", "weights": "w"}
    write_store(path, entries, StoreMetadata.build(sampling=sampling, encoder=encoder))
    return path
