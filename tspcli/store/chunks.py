"""Rows as HDF5 keeps them in a store: chunks of rows, each with HDF5's own checksum.

Chunks are written as they lie in the file (``write_direct_chunk``), past HDF5's filters: those of
another store are copied with their checksums, and a video's chunks are the same bytes however it
came into a store.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from tspcli.store.index import explain_read_errors

_CHUNK_BYTES = 1 << 16
"""Reading a few rows reads and checks their chunks; larger ones make that slower."""
_COPY_ROWS = 16_384
"""Rows converted at a time, so that memory does not depend on a video's length."""
_CHECKSUM_BYTES = 4
_MODULUS = 65_535

Rows: TypeAlias = "npt.NDArray[Any] | h5py.Dataset"


def chunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks of at most 64 KiB, of equal length so that the last one is as good as full."""
    n_rows, row_shape = shape[0], shape[1:]
    most = max(1, _CHUNK_BYTES // max(1, 4 * int(np.prod(row_shape))))
    n_chunks = max(1, -(-n_rows // most))
    return max(1, -(-n_rows // n_chunks)), *(max(1, width) for width in row_shape)


class Chunk(NamedTuple):
    """Some rows of a video.

    Attributes:
        rows: Shape (n, D), little-endian float32.
        stored: The chunk as it lies in a store, with its checksum; None if it lies in none.
    """

    rows: npt.NDArray[np.float32]
    stored: bytes | None = None


def read_chunks(rows: Rows, n_rows: int, key: str) -> Iterator[Chunk]:
    """Rows of shape (N, D), ``n_rows`` at a time; those of a store as they lie there.

    Args:
        rows: The rows.
        n_rows: How many at a time.
        key: The video, for errors.

    Raises:
        StoreError: If they cannot be read.
    """
    if not isinstance(rows, h5py.Dataset):
        yield from _converted(rows, n_rows)
        return
    # What a consumer of this generator raises does not pass here.
    with explain_read_errors(rows.file.filename, f"the rows of {key!r}", key):
        plain = _is_plain(rows, n_rows)
        for number, chunk in enumerate(_converted(rows, n_rows)):
            if not plain:
                yield chunk
                continue
            # HDF5 has compared the rows with the chunk's checksum, which is copied with them.
            skipped, stored = rows.id.read_direct_chunk((number * n_rows, 0))
            if skipped or not stored.startswith(chunk.rows.tobytes()):
                raise OSError("a chunk changed while it was read")
            yield Chunk(chunk.rows, stored)


def _converted(rows: Rows, n_rows: int) -> Iterator[Chunk]:
    step = max(1, _COPY_ROWS // n_rows) * n_rows
    for start in range(0, rows.shape[0], step):
        block = np.ascontiguousarray(rows[start : start + step], dtype="<f4")
        for at in range(0, len(block), n_rows):
            yield Chunk(block[at : at + n_rows])


def write_chunk(dataset: h5py.Dataset, start: int, chunk: Chunk) -> None:
    """Write a chunk of a dataset of shape (N, D) whose only filter is HDF5's checksum.

    Args:
        dataset: The dataset.
        start: The chunk's first row.
        chunk: Its rows; the last chunk may have fewer than the others.
    """
    stored = chunk.stored
    if stored is None:
        n_rows, width = dataset.chunks
        data = chunk.rows.tobytes() + bytes(4 * width * (n_rows - len(chunk.rows)))
        stored = data + fletcher32(data).to_bytes(_CHECKSUM_BYTES, "little")
    dataset.id.write_direct_chunk((start, 0), stored)


def fletcher32(data: bytes) -> int:
    """The checksum that HDF5's filter of that name computes of an even number of bytes."""
    words = np.frombuffer(data, "<u2").astype(np.float64)
    # Every sum is a whole number below 2 ** 53, so doubles are exact.
    sums = [round(float(total)) for total in _weights(len(words)) @ words]
    first, second = (_swapped(total) for total in sums)
    return second << 16 | first


@lru_cache(maxsize=4)
def _weights(n_words: int) -> npt.NDArray[np.float64]:
    return np.stack([np.ones(n_words), np.arange(n_words, 0, -1, dtype=np.float64)])


def _swapped(total: int) -> int:
    """A sum of little-endian words as that of big-endian ones, which HDF5 takes modulo 65,535."""
    return (total * 256 - 1) % _MODULUS + 1 if total else 0


def _is_plain(rows: h5py.Dataset, n_rows: int) -> bool:
    """Whether chunks are in the file as :func:`write_chunk` writes them."""
    properties = rows.id.get_create_plist()
    return (
        rows.ndim == 2
        and rows.dtype == np.dtype("<f4")
        and rows.chunks == (n_rows, rows.shape[1])
        and properties.get_nfilters() == 1
        and properties.get_filter(0)[0] == h5py.h5z.FILTER_FLETCHER32
        and rows.id.get_num_chunks() == -(-rows.shape[0] // n_rows)
    )
