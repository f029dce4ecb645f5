"""Reading and writing the one HDF5 file that everything else reads.

The layout is that of the official released features: one dataset a video at the root, named after
the video, shape (N, D), float32, rows in time order, and no other root entry. All else stands in
attributes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.run_dir import writer_of
from tspcli.core.text import counted
from tspcli.errors import StoreError
from tspcli.sampling import Sampling
from tspcli.sampling.spec import as_rate
from tspcli.sampling.windows import row_starts_s
from tspcli.store.schema import StoreMetadata
from tspcli.store.store_writer import plain, seal_checksum
from tspcli.store.trailer import explain_read_errors, require_intact_frame

LINKED_ATTRIBUTE = "linked_stores"
"""On a file that leads to the rows of other stores: their number."""


class VideoFeatures:
    """The rows of one video together with their seconds. Rows are read when they are asked for."""

    def __init__(
        self,
        key: str,
        dataset: h5py.Dataset,
        sampling: Sampling | None = None,
        otherwise: Sampling | None = None,
    ) -> None:
        """For stores.

        Args:
            key: The video.
            dataset: Its rows.
            sampling: What the file says of all its videos; None where it says nothing.
            otherwise: What holds where neither the file nor the dataset says anything.
        """
        self.key = key
        self._dataset = dataset
        self._path = dataset.file.filename
        self._sampling = sampling
        self._otherwise = otherwise

    @cached_property
    def rows(self) -> npt.NDArray[np.float32]:
        """The features, shape (N, D), float32, row i of clip i."""
        with self._reading("the rows"):
            return np.asarray(self._dataset[()], dtype=np.float32)

    def read_rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start`` to ``stop`` alone, shape (stop - start, D), without reading the others."""
        with self._reading("the rows"):
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
        with self._reading("the attributes"):
            return plain_attributes(self._dataset.attrs)

    @property
    def sampling(self) -> Sampling | None:
        """How the video was cut into clips, or None if nobody tells."""
        own = self.own_sampling
        return self._otherwise if own is None else own

    @property
    def own_sampling(self) -> Sampling | None:
        """How the video was cut into clips, as the file says it itself."""
        if self._sampling is not None:
            return self._sampling
        names = ("frame_rate", "clip_length", "stride")
        if not all(name in self.attrs for name in names):
            return None
        with self._reading("the sampling"):
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
        return row_starts_s(self._require_sampling(), self.n_rows)

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
        return self._number("duration_s")

    @property
    def source_fps(self) -> float | None:
        """Mean frames a second of the source video, or None if the file does not tell."""
        return self._number("source_fps")

    @property
    def warnings(self) -> list[str]:
        """What was out of the ordinary with this video."""
        with self._reading("the list of warnings"):
            return [str(text) for text in json.loads(self.attrs.get("warnings", "[]"))]

    def checked_rows(self) -> npt.NDArray[np.float32]:
        """:attr:`rows`, once they were compared with the checksum that is stored with them.

        Raises:
            StoreError: If they cannot be read, or they or the attributes are not those that were
                written.
        """
        rows = self.rows
        if self.verify() is False:
            raise self._altered()
        return rows

    def checked_blocks(self, n_rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """The rows, ``n_rows`` at a time; behind the last, all are compared with the checksum.

        Raises:
            StoreError: As :meth:`checked_rows` does.
        """
        digest = hashlib.sha256()
        for start in range(0, self.n_rows, n_rows):
            rows = self.read_rows(start, min(start + n_rows, self.n_rows))
            digest.update(np.ascontiguousarray(rows, dtype="<f4").data)
            yield rows
        if not self._fits_checksum(digest):
            raise self._altered()

    def _altered(self) -> StoreError:
        return StoreError(
            f"{self._path}: the rows or the attributes of {self.key!r} are not those that were "
            "written: their checksum differs.",
            remedy=f"Save what is whole with `tsp doctor {self._path} --repair`, and compute "
            "that video again.",
        )

    def verify(self) -> bool | None:
        """Whether rows and attributes are as they were written; None if no checksum is stored."""
        try:
            if self.attrs.get("checksum") is None:
                return None
            rows = np.ascontiguousarray(self.rows, dtype="<f4")
        except StoreError:
            return False
        return self._fits_checksum(hashlib.sha256(rows.data))

    def _fits_checksum(self, rows_digest: Any) -> bool:
        stored = self.attrs.get("checksum")
        try:
            return stored is None or bool(stored == seal_checksum(rows_digest, self.attrs))
        except (TypeError, ValueError):
            # Attributes of kinds that no run writes.
            return False

    def _number(self, name: str) -> float | None:
        value = self.attrs.get(name)
        with self._reading(name):
            return None if value is None else float(value)

    def _reading(self, what: str) -> AbstractContextManager[None]:
        return explain_read_errors(self._path, f"{what} of {self.key!r}")

    def _require_sampling(self) -> Sampling:
        sampling = self.sampling
        if sampling is None:
            raise StoreError(
                f"{self._path} does not say at which seconds the rows of {self.key!r} lie.",
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
            with explain_read_errors(self.path, "the attributes"):
                attributes = plain_attributes(self._file.attrs)
            self.metadata = StoreMetadata.from_attributes(attributes, str(path))
        except BaseException:
            self._file.close()
            raise
        self._otherwise = sampling
        self.is_linked = LINKED_ATTRIBUTE in attributes
        """Whether the rows lie in other stores; see :mod:`tspcli.store.merge`."""
        self._known_targets: set[str] = set()

    def __getitem__(self, key: str) -> VideoFeatures:
        with explain_read_errors(self.path, f"the entry {key!r}"):
            item = self._entry(key) if key in self else None
            rows = isinstance(item, h5py.Dataset) and item.ndim == 2
            shape = getattr(item, "shape", "a group")
        if item is None:
            raise KeyError(key)
        if not rows:
            remedy = "A feature store has one dataset of shape (rows, width) a video."
            if getattr(item, "ndim", None) == 1:
                remedy = (
                    "It looks like a file of global features, one vector a video: `tsp inspect` "
                    "shows it, `tsp pretrain --gvf` takes it."
                )
            raise StoreError(
                f"{self.path}: the entry {key!r} is {shape}, not rows of features.", remedy=remedy
            )
        return VideoFeatures(key, item, self.metadata.sampling, self._otherwise)

    def __iter__(self) -> Iterator[str]:
        with explain_read_errors(self.path, "the list of videos"):
            keys = list(self._file)
        return iter(keys)

    def __len__(self) -> int:
        with explain_read_errors(self.path, "the list of videos"):
            return len(self._file)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key:
            return False
        with explain_read_errors(self.path, f"the entry {key!r}"):
            # Of the link alone: what it leads to may be damaged, and then is not missing.
            return bool(self._file.id.links.exists(key.encode("utf-8", "surrogateescape")))

    @property
    def own_sampling(self) -> Sampling | None:
        """How videos were cut into clips, as the file says it of all or of its first one."""
        if self.metadata.sampling is not None:
            return self.metadata.sampling
        first = next(iter(self), None)
        return None if first is None else self[first].own_sampling

    def is_vector(self, key: str) -> bool:
        """Whether an entry is one readable vector, as in files of global features."""
        with explain_read_errors(self.path, f"the entry {key!r}"):
            item = self._entry(key)
            return isinstance(item, h5py.Dataset) and item.ndim == 1 and item[()] is not None

    def _entry(self, key: str) -> Any:
        link = self._file.get(key, getlink=True)
        if not self.is_linked or not isinstance(link, h5py.ExternalLink):
            return entry(self._file, key)
        target = self._require_target(str(link.filename))
        item = self._file[key]
        if not target.samefile(item.file.filename):
            raise ValueError("its link does not end where it leads to")
        return require_own_rows(item)

    def _require_target(self, name: str) -> Path:
        """The store that a link leads to: it has to be there, and of the same settings."""
        target = self.path.parent / name
        if name not in self._known_targets:
            if PurePath(name).is_absolute() or os.pardir in PurePath(name).parts:
                raise ValueError("it is a link out of the folder")
            if not target.exists():
                raise StoreError(
                    f"{self.path} leads to {target}, which does not exist.",
                    remedy="Put that store back, or write the links anew with `tsp merge --link`.",
                )
            with FeatureStore(target) as store:
                self.metadata.require_same(store.metadata, str(self.path), str(target))
            self._known_targets.add(name)
        return target

    def close(self) -> None:
        """Close the file; rows not read yet can no longer be."""
        self._file.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_store(path: str | Path, *, sampling: Sampling | None = None) -> FeatureStore:
    """Open a feature store, ours or any file in the official layout, for reading.

    Args:
        path: The HDF5 file.
        sampling: Where rows lie in time, for files that do not tell it themselves. Those that do
            keep their own; :mod:`tspcli.store.store_set` tells whether they agree.

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


def entry(file: h5py.File, key: str) -> Any:
    """What a file holds under a name, in that file itself.

    Raises:
        ValueError: If it leads to another file, whose content nobody meant to show.
    """
    if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
        raise ValueError("it is a link to another file")
    return require_own_rows(file[key])


def require_own_rows(item: Any) -> Any:
    """Refuse a dataset whose rows lie in another file than it does.

    Raises:
        ValueError: If they do.
    """
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise ValueError("its rows lie in another file")
    return item


def plain_attributes(attributes: h5py.AttributeManager) -> dict[str, Any]:
    """HDF5 attributes as plain Python values."""
    return {key: plain(value) for key, value in attributes.items()}


def _open_hdf5(path: Path) -> h5py.File:
    parts = parts_folder(path)
    if not path.exists():
        if parts.is_dir():
            finished = counted(sum(1 for _ in parts.glob("*.part")), "finished video")
            writer = writer_of(path)
            raise StoreError(
                f"{path} is not assembled yet: {finished} in {parts}."
                + (f" A run is writing it ({writer})." if writer else ""),
                remedy="Wait until that run has ended."
                if writer
                else "Run the `tsp extract` command again: it goes on where it stopped.",
            )
        raise StoreError(f"{path} does not exist.", remedy="Check the path.")
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not an HDF5 file.", remedy="Check the path.")
    require_intact_frame(path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if not h5py.is_hdf5(path) and os.access(path, os.R_OK):
            raise StoreError(
                f"{path} is not an HDF5 file.",
                remedy="Give a feature store; if it was one, compute it again.",
            ) from error
        raise StoreError(
            f"{path} cannot be opened as HDF5 ({error}).",
            remedy="Check that it is a feature store; if it was one, compute it again.",
        ) from error


def parts_folder(path: str | Path) -> Path:
    """The folder in which the finished videos of a store wait to be assembled."""
    path = Path(path)
    return path.with_name(path.name + ".parts")
