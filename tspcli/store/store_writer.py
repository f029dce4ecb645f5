"""Writing a store: HDF5 aside, the index behind it, then into place."""

from __future__ import annotations

import hashlib
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
from tspcli.store.schema import StoreMetadata
from tspcli.store.trailer import Placed, append_trailer

_COPY_ROWS = 16_384
"""Rows copied at a time, so that memory does not depend on a video's length."""


class NewStore:
    """A store that is being written; see :func:`new_store`."""

    def __init__(self, file: h5py.File, attributes: Mapping[str, Any]) -> None:
        self._file = file
        self.attributes = {name: plain(value) for name, value in attributes.items()}
        self.videos: dict[str, Placed] = {}
        self._n_bytes = 0
        file.attrs.update(attributes)

    def add(
        self,
        key: str,
        rows: npt.NDArray[Any] | h5py.Dataset,
        attributes: Mapping[str, Any],
    ) -> None:
        """Add one video's rows, shape (N, D), a block at a time.

        Raises:
            UsageError: If the key comes twice or is not a name.
            StoreError: If the attributes hold a checksum that the rows do not have.
        """
        if not is_key(key):
            raise UsageError(
                f"{key!r} cannot name a video in a store.",
                remedy="Use a name without slashes or NUL, other than '.' and '..'.",
            )
        if key in self.videos:
            raise UsageError(
                f"Two videos have the key {key!r}.", remedy="Rename one, or change --key."
            )
        n_bytes = 4 * rows.shape[0] * rows.shape[1]
        # Rows that HDF5 still keeps back count with those to come.
        self._n_bytes += n_bytes
        aside = Path(self._file.filename)
        kept_back = max(0, self._n_bytes - aside.stat().st_size)
        require_room(aside, max(n_bytes, kept_back), len(self.videos) + 1)
        dataset = self._file.create_dataset(key, shape=rows.shape, dtype="<f4")
        digest = hashlib.sha256()
        for start in range(0, rows.shape[0], _COPY_ROWS):
            block = np.ascontiguousarray(rows[start : start + _COPY_ROWS], dtype="<f4")
            digest.update(block.data)
            dataset[start : start + _COPY_ROWS] = block
        # In one order, whether they come from memory or from a file.
        for name in sorted(attributes):
            dataset.attrs[name] = attributes[name]
        known = {name: plain(value) for name, value in attributes.items()}
        if known.get("checksum", "") not in ("", seal_checksum(digest.copy(), known)):
            raise DamagedRowsError(
                f"The rows or the attributes of {key!r} are not those that were computed: their "
                "checksum differs.",
                remedy="See which videos are whole with `tsp doctor FILE`, and save them with "
                "`tsp doctor FILE --repair`.",
            )
        # Contiguous rows have a place as soon as one was written.
        offset = dataset.id.get_offset() if rows.shape[0] else None
        self.videos[key] = Placed(
            offset or 0, rows.shape[0], rows.shape[1], digest.hexdigest(), known
        )


class DamagedRowsError(StoreError):
    """Rows that are not as they were computed."""


@contextmanager
def new_store(
    path: str | Path, metadata: StoreMetadata, *, resumable: bool = False
) -> Iterator[NewStore]:
    """Write a store aside and rename it into place once it is whole.

    Args:
        path: The file; one that exists is replaced only at the end.
        metadata: What the file says of itself.
        resumable: Whether the same command, run again, resumes with what was finished.

    Raises:
        StoreError: If the disk is full or the folder cannot be written.
    """
    with replacing(path, resumable=resumable) as aside:
        # For the file itself, which has to be closed also if there is no room for any video.
        require_room(aside, 0, 0)
        with h5py.File(aside, "w") as file:
            store = NewStore(file, metadata.to_attributes())
            yield store
        append_trailer(aside, store.attributes, store.videos)


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
        StoreError: If the disk is full, the folder cannot be written, or rows do not have the
            checksum that their attributes hold.
        UsageError: If a key comes twice or is not a name.
    """
    with new_store(path, metadata) as store:
        for key, rows, attributes in videos:
            store.add(key, rows, attributes)
    return len(store.videos)


def is_key(key: str) -> bool:
    """Whether ``key`` can name a dataset at the root of an HDF5 file."""
    return bool(key) and "/" not in key and "\0" not in key and key not in (".", "..")


def content_checksum(rows: npt.NDArray[np.float32], attributes: Mapping[str, Any]) -> str:
    """sha256 over a video's rows and its attributes, the checksum's own left out."""
    digest = hashlib.sha256(np.ascontiguousarray(rows, dtype="<f4").data)
    return seal_checksum(digest, attributes)


def seal_checksum(rows_digest: Any, attributes: Mapping[str, Any]) -> str:
    """Finish a checksum whose rows were already fed to ``rows_digest`` (a running sha256)."""
    known = {key: value for key, value in attributes.items() if key != "checksum"}
    rows_digest.update(canonical_json(known).encode())
    return str(rows_digest.hexdigest())


def plain(value: Any) -> Any:
    """An HDF5 attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
