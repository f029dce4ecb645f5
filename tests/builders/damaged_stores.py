"""A small store, and everything that a reader sees of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, write_store
from tspcli.store.hdf5_values import plain
from tspcli.store.store_writer import content_checksum

DIM = 8


def small_store(path: Path, n_videos: int = 6) -> Path:
    """Write a store of ``n_videos`` videos of two to six rows with all the usual attributes."""
    rng = np.random.default_rng(5)

    def videos() -> Any:
        for number in range(n_videos):
            rows = rng.standard_normal((2 + number % 5, DIM)).astype(np.float32)
            attributes: dict[str, Any] = {
                "video": f"v{number}.mp4",
                "source_bytes": 1000 + number,
                "frame_rate": 15.0,
                "clip_length": 16,
                "stride": 16,
                "duration_s": 3.5,
                "decoder": "pyav",
                "warnings": json.dumps(["one"] if number % 2 else []),
            }
            attributes["checksum"] = content_checksum(rows, attributes)
            yield f"v{number}", rows, attributes

    encoder = {"backbone": "tiny", "weights": "some", "weights_sha256": "ab" * 32}
    write_store(path, videos(), StoreMetadata.build(sampling=Sampling(), encoder=encoder))
    return path


def seen(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(file attributes, key to rows and attributes) as any HDF5 program reads them."""
    with h5py.File(path, "r") as file:
        videos = {
            key: (
                file[key][()].tobytes(),
                file[key].shape,
                {name: plain(value) for name, value in file[key].attrs.items()},
            )
            for key in file
        }
        return {name: plain(value) for name, value in file.attrs.items()}, videos


def without_index(path: Path) -> Path:
    """Cut the index off, which leaves a store as earlier versions wrote it."""
    with h5py.File(path, "r+"):
        pass
    return path


def flip_row(path: Path, key: str) -> Path:
    """Flip a bit of a video's first row."""
    with h5py.File(path, "r") as file:
        at = file[key].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path
