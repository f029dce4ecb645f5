"""What a store knows of itself outside of HDF5, so that damage is seen and the rest is saved.

Behind the end of the HDF5 file, where no HDF5 program looks, stand a JSON index (the file's
attributes; each video's place, shape, attributes and sha256 of its rows; a sha256 over all bytes
that are no rows), its length, its own sha256 and 8 bytes of magic. HDF5 checks next to nothing of
what it reads: of 4,000 single flipped bits in a small store, some crashed it, some hung it, and
some changed the name of a video without a word. Here every flipped bit is noticed, and rows are
found again without HDF5. A program that changes the file through HDF5 cuts the index off.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tspcli.core.sealed_file import read_footer, seal
from tspcli.core.text import MALFORMED
from tspcli.errors import StoreError

_MAGIC = b"TSPINDEX"
_MOST_INDEX_BYTES = 1 << 40
_VERSION = 1
_BLOCK_BYTES = 1 << 20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Superblock versions 0 and 1 hold the end of the file behind base and free-space addresses.
_END_ADDRESS_AT = {0: 40, 1: 44, 2: 28, 3: 28}


@dataclass(frozen=True)
class Placed:
    """Where a video's rows lie, and what belongs to them.

    Attributes:
        offset: Of the first row, in bytes from the beginning of the file.
        n_rows, dim: Shape of the rows, float32.
        rows_sha256: Of the rows' bytes.
        attributes: Those of the dataset.
    """

    offset: int
    n_rows: int
    dim: int
    rows_sha256: str
    attributes: Mapping[str, Any]

    @property
    def n_bytes(self) -> int:
        """Size of the rows."""
        return self.n_rows * self.dim * 4

    def check(self, hdf5_bytes: int) -> None:
        """Raise ValueError unless the rows lie inside of an HDF5 file of that length."""
        numbers = (self.offset, self.n_rows, self.dim)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"rows at {numbers}")
        if self.offset + self.n_bytes > hdf5_bytes or not isinstance(self.attributes, Mapping):
            raise ValueError(f"rows at {numbers} of {hdf5_bytes} bytes")


@dataclass(frozen=True)
class Trailer:
    """The index of a store.

    Attributes:
        hdf5_bytes: Length of the HDF5 file, where the index begins.
        frame_sha256: Of all its bytes that are no rows of ``videos``.
        attributes: The file's.
        videos: By key.
    """

    hdf5_bytes: int
    frame_sha256: str
    attributes: Mapping[str, Any]
    videos: Mapping[str, Placed]

    def frame_is_intact(self, path: Path) -> bool:
        """Whether what HDF5 reads to find the rows is as it was written; reads no rows."""
        with open(path, "rb") as file:
            return self.frame_sha256 == _frame_sha256(file, self.hdf5_bytes, self.videos.values())

    def damaged_rows(self, path: Path) -> Iterator[str]:
        """The keys of videos whose rows are not as they were written."""
        with open(path, "rb") as file:
            for key, placed in self.videos.items():
                if _sha256(file, placed.offset, placed.n_bytes) != placed.rows_sha256:
                    yield key


def append_trailer(
    path: Path, attributes: Mapping[str, Any], videos: Mapping[str, Placed]
) -> Trailer:
    """Write the index behind an HDF5 file that is complete and closed."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        frame = _frame_sha256(file, size, videos.values())
        trailer = Trailer(size, frame, attributes, videos)
        index = {
            "version": _VERSION,
            "frame_sha256": frame,
            "attributes": attributes,
            "videos": {key: vars(placed) for key, placed in videos.items()},
        }
        file.seek(size)
        file.write(seal(index, _MAGIC, with_digest=True))
    return trailer


def read_trailer(path: Path) -> Trailer | None:
    """The index of a store; None where there is none, or one of a later version.

    Raises:
        StoreError: If what stands there is damaged. The HDF5 file may be whole all the same.
    """
    with explain_read_errors(path), open(path, "rb") as file:
        try:
            found = read_footer(
                file.fileno(), _MAGIC, with_digest=True, most_bytes=_MOST_INDEX_BYTES
            )
        except MALFORMED as error:
            raise _damaged(path, str(error)) from error
        if found is None:
            end = _hdf5_end(file)
            if end is not None and file.seek(0, os.SEEK_END) > end:
                raise _damaged(path, "its end is not that of an index")
            return None
    try:
        index, start = found
        if index["version"] > _VERSION:
            return None
        videos = {str(key): Placed(**values) for key, values in index["videos"].items()}
        for placed in videos.values():
            placed.check(start)
        return Trailer(start, str(index["frame_sha256"]), dict(index["attributes"]), videos)
    except MALFORMED as error:
        raise _damaged(path, repr(error)) from error


def missing_bytes(path: Path) -> int:
    """By how much an HDF5 file is shorter than it says; 0 if it is not, or does not say."""
    with explain_read_errors(path), open(path, "rb") as file:
        end = _hdf5_end(file)
        return 0 if end is None else max(0, end - file.seek(0, os.SEEK_END))


def require_intact_frame(path: Path) -> None:
    """Refuse a file whose index says that what leads to its rows has changed; reads no rows.

    Raises:
        StoreError: If it has.
    """
    try:
        trailer = read_trailer(path)
    except StoreError:
        # What HDF5 reads may be whole all the same; `tsp doctor` tells.
        return
    if trailer is not None and not trailer.frame_is_intact(path):
        raise StoreError(
            f"{path} is damaged: what leads to its rows is not as it was written.",
            remedy=f"See which videos are whole with `tsp doctor {path}`, and save them with "
            f"`tsp doctor {path} --repair`.",
        )


@contextmanager
def explain_read_errors(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn what HDF5 and the operating system make of a damaged file into a :class:`StoreError`."""
    try:
        yield
    # h5py has no error of its own; which of these it takes depends on where the damage is.
    except (
        OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
        MemoryError,
    ) as error:  # fmt: skip
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(
            f"{path}: {what or 'the file'} cannot be read ({words}).",
            remedy="See what is left with `tsp doctor FILE`, save it with `tsp doctor FILE "
            "--repair`, or take a copy of the file that is whole.",
        ) from error


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path}: the index at its end is damaged ({why}).",
        remedy=f"Write it anew with `tsp doctor {path} --repair`.",
    )


def _frame_sha256(file: IO[bytes], size: int, videos: Iterable[Placed]) -> str:
    """sha256 over the first ``size`` bytes without those of rows."""
    digest = hashlib.sha256()
    at = 0
    for placed in sorted(videos, key=lambda placed: placed.offset):
        if placed.n_bytes:
            _feed(digest, file, at, placed.offset - at)
            at = placed.offset + placed.n_bytes
    _feed(digest, file, at, size - at)
    return digest.hexdigest()


def _sha256(file: IO[bytes], start: int, length: int) -> str:
    digest = hashlib.sha256()
    _feed(digest, file, start, length)
    return digest.hexdigest()


def _feed(digest: Any, file: IO[bytes], start: int, length: int) -> None:
    file.seek(start)
    while length > 0 and (block := file.read(min(length, _BLOCK_BYTES))):
        digest.update(block)
        length -= len(block)


def _hdf5_end(file: IO[bytes]) -> int | None:
    """Where an HDF5 file says that it ends."""
    file.seek(0)
    head = file.read(64)
    if len(head) < 64 or not head.startswith(_HDF5_SIGNATURE) or head[8] not in _END_ADDRESS_AT:
        return None
    return int.from_bytes(head[_END_ADDRESS_AT[head[8]] :][:8], "little")
