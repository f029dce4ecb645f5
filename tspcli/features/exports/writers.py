"""The containers that readers open: npy files, HDF5 files, CSV files."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tspcli.features.atomic import require_room
from tspcli.features.exports.target import Array, PlannedVideo, Writer

Streams = Callable[[Array], list[tuple[str, Array]]]


class NpyWriter(Writer):
    """One or more ``.npy`` files a video, from functions of its name and rows."""

    def __init__(self, folder: Path, streams: Streams, stem: Callable[[str], str] = str) -> None:
        self.folder = folder
        self._streams = streams
        self._stem = stem

    def write(self, video: PlannedVideo, rows: Array) -> None:
        for suffix, array in self._streams(rows):
            np.save(self.folder / f"{self._stem(video.name)}{suffix}.npy", array)


class CsvWriter(Writer):
    """One comma-separated file a video: a header ``f0,f1,…``, then rows; no index column.

    Nine significant digits give every float32 back exactly.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self._header = ",".join(f"f{i}" for i in range(width)) + "\n"
        self._line = ",".join(["%.9g"] * width) + "\n"

    def write(self, video: PlannedVideo, rows: Array) -> None:
        with open(self.folder / f"{video.name}.csv", "w", encoding="ascii") as file:
            file.write(self._header)
            for row in rows.tolist():
                file.write(self._line % tuple(row))


class Hdf5Writer(Writer):
    """One HDF5 file with a dataset a video at the root; all else in attributes."""

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        describe: Callable[[PlannedVideo], Mapping[str, Any]],
        *,
        compressed: bool = False,
    ) -> None:
        self._path = path
        self._n_videos = 0
        require_room(path, 0, 0)
        self._file = h5py.File(path, "w")
        self._file.attrs.update(attributes)
        self._describe = describe
        self._compressed = compressed

    def write(self, video: PlannedVideo, rows: Array) -> None:
        options: dict[str, Any] = {}
        if self._compressed and rows.size:
            # As in the released files.
            options = {"chunks": True, "compression": "gzip", "compression_opts": 9}
        self._n_videos += 1
        require_room(self._path, rows.nbytes, self._n_videos)
        dataset = self._file.create_dataset(video.name, data=rows, **options)
        for name, value in self._describe(video).items():
            dataset.attrs[name] = value

    def close(self) -> None:
        self._file.close()


def one_stream(suffix: str = "") -> Streams:
    """A single array a video."""
    return lambda rows: [(suffix, rows)]
