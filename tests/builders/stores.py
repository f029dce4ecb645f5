"""Stores of made-up features that behave like real ones."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, write_store
from tspcli.store.schema import sampling_attributes
from tspcli.store.store_writer import content_checksum

DIM = 64
TSP = Sampling()


def network(seed: int = 0) -> np.ndarray:
    """Weights: what the channels mean."""
    return np.random.default_rng(seed).normal(size=(12, DIM))


def scene(times: np.ndarray, video: int) -> np.ndarray:
    """What is to be seen at a time: 12 slow and quick signals, different for each video."""
    rng = np.random.default_rng(1000 + video)
    pace, phase = rng.uniform(0.2, 1.6, 12), rng.uniform(0, 6, 12)
    return np.sin(times[:, None] * pace + phase) + 0.3 * np.sin(3.1 * times[:, None] * pace)


def features(
    n: int, video: int, *, weights: int = 0, sampling: Sampling = TSP, late_s: float = 0.0
) -> np.ndarray:
    """Rectified, so that all rows are alike in a way, as real clip features are."""
    times = np.array([float(sampling.clip_center_s(i)) for i in range(n)]) + late_s
    return np.maximum(scene(times, video) @ network(weights) + 1.0, 0).astype(np.float32)


def store(
    path: Path,
    videos: dict[str, np.ndarray],
    *,
    sampling: Sampling | None = TSP,
    checksums: bool = False,
    warnings: dict[str, list[str]] | None = None,
    **settings: object,
) -> Path:
    if sampling is None:
        with h5py.File(path, "w") as file:
            for key, rows in videos.items():
                file[key] = rows
        return path

    def entries():
        for key, rows in videos.items():
            attributes = {
                "duration_s": float(sampling.clip_end_s(len(rows) - 1)) + 0.5,
                "source_fps": 25.0,
                "decoder": "pyav",
                "warnings": json.dumps((warnings or {}).get(key, [])),
                **sampling_attributes(sampling),
            }
            if checksums:
                attributes["checksum"] = content_checksum(rows, attributes)
            yield key, rows, attributes

    encoder = {"backbone": "r3d_18", "weights": "w", "weights_sha256": "00", **settings}
    write_store(path, entries(), StoreMetadata.build(sampling=sampling, encoder=encoder))
    return path


VIDEOS = {f"v_{n}": features(60 + n, n) for n in range(4)}


def damaged_store(path: Path) -> Path:
    """A store in which the rows of one video are not those of which the checksum was made."""
    store(path, {"v_good": features(20, 0), "v_bad": features(20, 1)}, checksums=True)
    with h5py.File(path, "r+") as file:
        file["v_bad"][7] = np.float32(0.5)
    return path
