"""Reading and writing the one HDF5 file that everything else reads.

The layout is that of the official released features: one dataset a video at the root, named after
the video, shape (N, D), float32, rows in time order, and no other root entry. All else stands in
attributes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.errors import StoreError, UsageError
from tspcli.features.atomic import write_aside
from tspcli.features.metadata import StoreMetadata, canonical_json
from tspcli.timeline import Sampling, as_rate

_COPY_ROWS = 16_384
"""Rows copied at a time, so that memory does not depend on a video's length."""


class VideoFeatures:
    """The rows of one video together with their seconds. Rows are read when they are asked for."""

    def __init__(
        self,
        key: str,
        dataset: h5py.Dataset,
        sampling: Sampling | None,
    ) -> None:
        self.key = key
        self._dataset = dataset
        self._sampling = sampling

    @cached_property
    def rows(self) -> npt.NDArray[np.float32]:
        """The features, shape (N, D), float32, row i of clip i."""
        return np.asarray(self._dataset[()], dtype=np.float32)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start`` to ``stop`` alone, shape (stop - start, D), without reading the others."""
        return np.asarray(self._dataset[start:stop], dtype=np.float32)

    @property
    def n_rows(self) -> int:
        """N, the number of clips."""
        return int(self._dataset.shape[0])

    @property
    def dim(self) -> int:
        """D, the width of a feature."""
        return int(self._dataset.shape[1])

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """The dataset's attributes as plain Python values."""
        return plain_attributes(self._dataset.attrs)

    @property
    def sampling(self) -> Sampling | None:
        """How the video was cut into clips, or None if the file does not tell."""
        if self._sampling is not None:
            return self._sampling
        names = ("frame_rate", "clip_length", "stride")
        if not all(name in self.attrs for name in names):
            return None
        rate = as_rate(self.attrs["frame_rate"], "frame rate")
        return Sampling(
            frame_rate=rate,
            clip_length=int(self.attrs["clip_length"]),
            stride=int(self.attrs["stride"]),
            grid_rate=as_rate(self.attrs.get("grid_rate", max(rate, 30)), "grid rate"),
        )

    @property
    def start_s(self) -> npt.NDArray[np.float64]:
        """Start of each row's clip in seconds after the video's first frame, shape (N,)."""
        sampling = self._require_sampling()
        return np.arange(self.n_rows, dtype=np.float64) * float(sampling.stride_s)

    @property
    def center_s(self) -> npt.NDArray[np.float64]:
        """Centre of each row's clip in seconds after the video's first frame, shape (N,)."""
        return self.start_s + float(self._require_sampling().clip_duration_s) / 2

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """End of each row's clip in seconds after the video's first frame, shape (N,)."""
        return self.start_s + float(self._require_sampling().clip_duration_s)

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first frame to the end of the last, or None if nothing tells."""
        value = self.attrs.get("duration_s")
        return None if value is None else float(value)

    @property
    def source_fps(self) -> float | None:
        """Mean frames a second of the source video, or None if the file does not tell."""
        value = self.attrs.get("source_fps")
        return None if value is None else float(value)

    @property
    def warnings(self) -> list[str]:
        """What was out of the ordinary with this video."""
        return list(json.loads(self.attrs.get("warnings", "[]")))

    def verify(self) -> bool | None:
        """Whether rows and attributes are as they were written; None if no checksum is stored."""
        stored = self.attrs.get("checksum")
        if stored is None:
            return None
        return bool(stored == content_checksum(self.rows, self.attrs))

    def _require_sampling(self) -> Sampling:
        sampling = self.sampling
        if sampling is None:
            raise StoreError(
                f"{self._dataset.file.filename} does not say at which seconds the rows of "
                f"{self.key!r} lie.",
                remedy="Give frame rate, stride and clip length; the features released with TSP "
                "have 15, 16 (THUMOS14: 1) and 16.",
            )
        return sampling


class FeatureStore(Mapping[str, VideoFeatures]):
    """A store opened for reading: a mapping from a video's key to its features."""

    def __init__(self, path: str | Path, *, sampling: Sampling | None = None) -> None:
        self.path = Path(path)
        self._file = _open_hdf5(self.path)
        try:
            attributes = plain_attributes(self._file.attrs)
            self.metadata = StoreMetadata.from_attributes(attributes, str(path))
        except BaseException:
            self._file.close()
            raise
        self.sampling = self.metadata.sampling or sampling

    def __getitem__(self, key: str) -> VideoFeatures:
        try:
            item = self._file[key] if key and "/" not in key else None
        except (KeyError, ValueError):
            item = None
        except (OSError, RuntimeError) as error:
            raise StoreError(
                f"{self.path}: the entry {key!r} cannot be read ({error}).",
                remedy="Take a copy of the file that is whole, or compute it again.",
            ) from error
        if item is None:
            raise KeyError(key)
        if not isinstance(item, h5py.Dataset) or item.ndim != 2:
            shape = getattr(item, "shape", "a group")
            raise StoreError(
                f"{self.path}: the entry {key!r} is {shape}, not rows of features.",
                remedy="A feature store has one dataset of shape (rows, width) a video.",
            )
        return VideoFeatures(key, item, self.sampling)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not key or "/" in key:
            return False
        try:
            return key in self._file
        except UnicodeEncodeError:
            # A name with bytes that are no UTF-8 names no dataset.
            return False

    def close(self) -> None:
        """Close the file; rows not read yet can no longer be."""
        self._file.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_store(path: str | Path, *, sampling: Sampling | None = None) -> FeatureStore:
    """Open a feature store, ours or any file in the official layout, for reading.

    Args:
        path: The HDF5 file.
        sampling: Where rows lie in time, for files that do not tell it themselves. Ignored for
            those that do.

    Raises:
        StoreError: If there is no such file, or it is not an HDF5 file, or its attributes are
            damaged.

    Example:
        >>> with open_store("feats.h5") as store:                        # doctest: +SKIP
        ...     video = store["v_sJFgo9H6zNo"]
        ...     video.rows.shape, video.center_s[:2]
        ((130, 512), array([0.533, 1.6  ]))
    """
    return FeatureStore(path, sampling=sampling)


def write_store(
    path: str | Path,
    videos: Iterable[tuple[str, npt.NDArray[Any] | h5py.Dataset, Mapping[str, Any]]],
    metadata: StoreMetadata,
) -> int:
    """Write a whole store aside and rename it into place.

    Args:
        path: The file; one that exists is replaced only once the new one is whole.
        videos: (key, rows of shape (N, D), attributes) of each video. Taken one at a time.
        metadata: What the file says of itself.

    Returns:
        The number of videos written.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
        UsageError: If a key comes twice or is not a name.
    """
    count = 0
    with write_aside(path) as aside, h5py.File(aside, "w") as file:
        file.attrs.update(metadata.to_attributes())
        for key, rows, attributes in videos:
            add_video(file, key, rows, attributes)
            count += 1
    return count


def add_video(
    file: h5py.File,
    key: str,
    rows: npt.NDArray[Any] | h5py.Dataset,
    attributes: Mapping[str, Any],
) -> None:
    """Add one video's rows to an open file, a block at a time."""
    if not is_key(key):
        raise UsageError(
            f"{key!r} cannot name a video in a store.",
            remedy="Use a name without slashes or NUL, other than '.' and '..'.",
        )
    if key in file:
        raise UsageError(f"Two videos have the key {key!r}.", remedy="Rename one, or change --key.")
    dataset = file.create_dataset(key, shape=rows.shape, dtype="<f4")
    for start in range(0, rows.shape[0], _COPY_ROWS):
        dataset[start : start + _COPY_ROWS] = rows[start : start + _COPY_ROWS]
    for name, value in attributes.items():
        dataset.attrs[name] = value


def is_key(key: str) -> bool:
    """Whether ``key`` can name a dataset at the root of an HDF5 file."""
    return bool(key) and "/" not in key and "\0" not in key and key not in (".", "..")


def content_checksum(rows: npt.NDArray[np.float32], attributes: Mapping[str, Any]) -> str:
    """sha256 over a video's rows and its attributes, the checksum's own left out."""
    digest = hashlib.sha256(np.ascontiguousarray(rows, dtype="<f4").data)
    return seal_checksum(digest.copy(), attributes)


def seal_checksum(rows_digest: Any, attributes: Mapping[str, Any]) -> str:
    """Finish a checksum whose rows were already fed to ``rows_digest`` (a running sha256)."""
    known = {key: value for key, value in attributes.items() if key != "checksum"}
    rows_digest.update(canonical_json(known).encode())
    return str(rows_digest.hexdigest())


def plain_attributes(attributes: h5py.AttributeManager) -> dict[str, Any]:
    """HDF5 attributes as plain Python values."""
    return {key: _plain(value) for key, value in attributes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _open_hdf5(path: Path) -> h5py.File:
    parts = parts_folder(path)
    if not path.exists():
        if parts.is_dir():
            finished = sum(1 for _ in parts.glob("*.part"))
            raise StoreError(
                f"{path} is not assembled yet; {finished} finished videos wait in {parts}.",
                remedy="Run the `tsp extract` command again: it goes on where it stopped.",
            )
        raise StoreError(f"{path} does not exist.", remedy="Check the path.")
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not an HDF5 file.", remedy="Check the path.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened as HDF5 ({error}).",
            remedy="Check that it is a feature store; if it was one, compute it again.",
        ) from error


def parts_folder(path: str | Path) -> Path:
    """The folder in which the finished videos of a store wait to be assembled."""
    path = Path(path)
    return path.with_name(path.name + ".parts")
