"""The index behind the HDF5 file: which attributes and videos a store has, and their checksums.

HDF5's own checksums, which format 2 switches on, notice every byte that is not as it was written.
They cannot notice a part of an older version of the file that is complete in itself, as a disk that
loses a write leaves it. So behind the end of the HDF5 file, where no HDF5 program looks, stand the
file's attributes and each video's checksum as JSON, the JSON's length, its sha256 and a magic
number. Opening a store compares the attributes and the list of videos, reading a video its
checksum. A program that changes the file through HDF5 cuts the index off.

In format 1, which has no checksums of HDF5, the index also holds the sha256 of all bytes that are
not rows; opening compares that.
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
from tspcli.store.hdf5_file import hdf5_end

_MAGIC = b"TSPINDEX"
_VERSION = 2
_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class Index:
    """The index of a store.

    Attributes:
        attributes: The file's, as plain values.
        videos: Key to the checksum of rows and attributes; in a store of links, to the name of the
            store that the link leads to.
    """

    attributes: Mapping[str, Any]
    videos: Mapping[str, str | None]

    def differences(self, attributes: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
        """How a file that was opened is not the one that was written, in words."""
        found = []
        if attributes != self.attributes:
            found.append("the attributes are not those that were written")
        keys = set(keys)
        if lost := sorted(self.videos.keys() - keys):
            found.append(f"{', '.join(lost[:3])}{' …' if len(lost) > 3 else ''} missing")
        if extra := sorted(keys - self.videos.keys()):
            found.append(f"{', '.join(extra[:3])}{' …' if len(extra) > 3 else ''} unexpected")
        return found


def append_index(path: Path, index: Index) -> None:
    """Write the index behind an HDF5 file that is complete and closed."""
    values = {"version": _VERSION, "attributes": index.attributes, "videos": index.videos}
    with open(path, "ab") as file:
        file.write(seal(values, _MAGIC, with_digest=True))


def read_index(path: Path) -> Index | None:
    """The index of a store; None where there is none, or one of a later version.

    Raises:
        StoreError: If it is damaged, or an index of format 1 shows that what HDF5 reads is.
    """
    with explain_read_errors(path), open(path, "rb") as file:
        try:
            found = read_footer(file.fileno(), _MAGIC, with_digest=True, most_bytes=_MOST_BYTES)
            if found is not None:
                return _parse(found.values, file, found.start)
            end = hdf5_end(file)
            if end is not None and os.fstat(file.fileno()).st_size > end:
                raise ValueError("it is incomplete")
        except MALFORMED as error:
            raise damaged_file(path, f"the index at its end does not fit ({error})") from error
    return None


def _parse(values: Any, file: IO[bytes], hdf5_bytes: int) -> Index | None:
    version = values["version"]
    if version > _VERSION:
        return None
    videos = dict(values["videos"])
    if version == 1:
        spans = [(v["offset"], v["n_rows"] * v["dim"] * 4) for v in videos.values()]
        if values["frame_sha256"] != _frame_sha256(file, hdf5_bytes, spans):
            raise ValueError("what leads to its rows is not as it was written")
        if not videos:
            # A file of global features or of links: all of it was just compared.
            return None
        videos = {key: v["attributes"].get("checksum") for key, v in videos.items()}
    elif hdf5_end(file) != hdf5_bytes:
        raise ValueError("its length is not that of the file that was written")
    return Index(dict(values["attributes"]), videos)


def _frame_sha256(file: IO[bytes], size: int, spans: list[tuple[int, int]]) -> str:
    """sha256 of the first ``size`` bytes without some spans, each given as start and length."""
    digest = hashlib.sha256()
    at = 0
    for offset, length in [*sorted(span for span in spans if span[1]), (size, 0)]:
        if not at <= offset <= size:
            raise ValueError(f"the index at its end leads to byte {offset} of {size}")
        file.seek(at)
        while at < offset and (block := file.read(min(offset - at, _BLOCK_BYTES))):
            digest.update(block)
            at += len(block)
        at = offset + length
    return digest.hexdigest()


def damaged_file(path: Path, why: str) -> StoreError:
    """The error for a file that as a whole is not as it was written."""
    return StoreError(
        f"{path} is damaged: {why}.",
        remedy=f"List the intact videos with `tsp doctor {path}`, and save them with "
        f"`tsp doctor {path} --repair`.",
        path=path,
    )


@contextmanager
def explain_read_errors(
    path: Path | str, what: str = "", video: str | None = None
) -> Iterator[None]:
    """Turn what HDF5 and the operating system make of a damaged file into a :class:`StoreError`.

    Args:
        path: The file.
        what: What is read of it.
        video: The video that it belongs to, which becomes the error's ``value``.
    """
    try:
        yield
    # h5py has no error of its own; which of these it raises depends on where the damage is.
    except (
        OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
        MemoryError,
    ) as error:  # fmt: skip
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(
            f"{path}: {what or 'the file'} cannot be read ({words}).",
            remedy="List the intact videos with `tsp doctor FILE`, save them with `tsp doctor FILE "
            "--repair`, or restore the file from a copy.",
            path=path,
            value=video,
        ) from error
