"""Writing a store: HDF5 aside, the index behind it, then into place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.core.files import replacing, require_room
from tspcli.core.text import canonical_json
from tspcli.errors import StoreError, UsageError
from tspcli.store.chunks import Rows, chunk_shape, read_chunks, write_chunk
from tspcli.store.hdf5_values import plain, write_attributes
from tspcli.store.index import Index, append_index
from tspcli.store.schema import StoreMetadata

_ALL_COMPACT = 65_535, 0
"""Attributes stay in the object's header however many there are."""


class NewStore:
    """An HDF5 file that is being written; see :func:`new_store`."""

    def __init__(self, file: h5py.File, attributes: Mapping[str, Any]) -> None:
        self._file = file
        self.attributes = {name: plain(value) for name, value in attributes.items()}
        self.videos: dict[str, str | None] = {}
        self._n_bytes = 0
        write_attributes(file, attributes)

    def add(self, key: str, rows: Rows, attributes: Mapping[str, Any], **options: Any) -> None:
        """Add one video's rows, shape (N, D) or (D,), a block at a time.

        Args:
            key: The video.
            rows: Its rows, or its one vector.
            attributes: Of its dataset.
            **options: Further options of ``h5py.Group.create_dataset``.

        Raises:
            UsageError: If the key comes twice or is not a name.
            DamagedRowsError: If the attributes hold a checksum that the rows do not have.
            StoreError: If the rows cannot be read, or there is no room.
        """
        if not is_key(key):
            raise UsageError(
                f"{key!r} cannot name a video in a store.",
                remedy="Use a name without slashes or NUL, other than '.' and '..'.",
                value=key,
            )
        if key in self.videos:
            raise UsageError(
                f"Two videos have the key {key!r}.",
                remedy="Rename one, or change --key.",
                value=key,
            )
        self._require_room(4 * int(np.prod(rows.shape)))
        chunks = chunk_shape(rows.shape)
        dataset = self._file.create_dataset(
            key,
            shape=rows.shape,
            dtype="<f4",
            chunks=chunks,
            fletcher32=True,
            dcpl=_compact(h5py.h5p.DATASET_CREATE),
            **options,
        )
        digest = hashlib.sha256()
        for number, chunk in enumerate(read_chunks(rows, chunks[0], key)):
            digest.update(chunk.rows.data)
            start = number * chunks[0]
            if len(chunks) == 2 and not options:
                write_chunk(dataset, start, chunk)
            else:
                dataset[start : start + len(chunk.rows)] = chunk.rows
        write_attributes(dataset, attributes)
        known = {name: plain(value) for name, value in attributes.items()}
        checksum = seal_checksum(digest, known)
        if known.get("checksum", "") not in ("", checksum):
            raise DamagedRowsError(
                f"The rows or the attributes of {key!r} are not those that were computed: their "
                "checksum differs.",
                remedy="List the intact videos with `tsp doctor FILE`, and save them with "
                "`tsp doctor FILE --repair`.",
                value=key,
            )
        self.videos[key] = checksum

    def link(self, key: str, store: str) -> None:
        """Add a link to a video of the same key in another store, given relative to this one."""
        self._require_room(0)
        self._file[key] = h5py.ExternalLink(store, f"/{key}")
        self.videos[key] = store

    def _require_room(self, n_bytes: int) -> None:
        # Rows that HDF5 still keeps back count with those to come.
        self._n_bytes += n_bytes
        aside = Path(self._file.filename)
        kept_back = max(0, self._n_bytes - aside.stat().st_size)
        require_room(aside, max(n_bytes, kept_back), len(self.videos) + 1)


class DamagedRowsError(StoreError):
    """Rows that are not as they were computed."""


@contextmanager
def new_store(
    path: str | Path, attributes: Mapping[str, Any], *, resumable: bool = False
) -> Iterator[NewStore]:
    """Write an HDF5 file aside and rename it into place once it is complete.

    Args:
        path: The file; one that exists is replaced only at the end.
        attributes: Of the file; see :meth:`tspcli.store.schema.StoreMetadata.to_hdf5`.
        resumable: Whether the same command, given again, resumes after what was finished.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    with replacing(path, resumable=resumable) as aside:
        # For the file itself, which has to be closed also if there is no room for any video.
        require_room(aside, 0, 0)
        with _create(aside) as file:
            store = NewStore(file, attributes)
            yield store
        append_index(aside, Index(store.attributes, store.videos))


def write_store(
    path: str | Path,
    videos: Iterable[tuple[str, Rows, Mapping[str, Any]]],
    metadata: StoreMetadata,
) -> int:
    """Write a complete store aside and rename it into place.

    Args:
        path: The file; one that exists is replaced only once the new one is complete.
        videos: (key, rows of shape (N, D), attributes) of each video. Taken one at a time.
        metadata: The file's provenance.

    Returns:
        The number of videos written.

    Raises:
        StoreError: If the disk is full, the folder cannot be written, or rows do not have the
            checksum that their attributes hold.
        UsageError: If a key comes twice or is not a name.
    """
    with new_store(path, metadata.to_hdf5()) as store:
        for key, rows, attributes in videos:
            store.add(key, rows, attributes)
    return len(store.videos)


def is_key(key: str) -> bool:
    """Whether ``key`` can name a dataset at the root of an HDF5 file."""
    return bool(key) and "/" not in key and "\0" not in key and key not in (".", "..")


def content_checksum(rows: npt.NDArray[np.float32], attributes: Mapping[str, Any]) -> str:
    """sha256 over a video's rows and its attributes other than the checksum itself."""
    digest = hashlib.sha256(np.ascontiguousarray(rows, dtype="<f4").data)
    return seal_checksum(digest, attributes)


def seal_checksum(rows_digest: Any, attributes: Mapping[str, Any]) -> str:
    """Finish a checksum whose rows were already fed to ``rows_digest`` (a running sha256)."""
    known = {key: value for key, value in attributes.items() if key != "checksum"}
    rows_digest.update(canonical_json(known).encode())
    return str(rows_digest.hexdigest())


def _create(path: Path) -> h5py.File:
    """An HDF5 file of the format of HDF5 1.10, all of whose structures have checksums."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    # Nobody else knows this file, and file systems without locks would refuse it.
    access.set_file_locking(False, True)
    creation = _compact(h5py.h5p.FILE_CREATE)
    # Otherwise the root would hold the time, and equal stores would differ.
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _compact(kind: Any) -> Any:
    properties = h5py.h5p.create(kind)
    properties.set_attr_phase_change(*_ALL_COMPACT)
    return properties
