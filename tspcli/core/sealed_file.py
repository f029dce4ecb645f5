"""A sealed file: its content, then a JSON footer, the footer's length and a magic word.

Its content can be appended without knowing how much will come, in constant memory; a file without
the seal is one whose writer was killed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.core.files import aside_name, explain_write_errors, sync_folder
from tspcli.core.text import canonical_json, parse_json
from tspcli.errors import StoreError

_LENGTH = struct.Struct("<Q")
_MAGIC_BYTES = 8
_DIGEST_BYTES = 32


class SealedWriter:
    """Appends to a file aside; :meth:`commit` adds the footer and puts the file in its place.

    A killed writer thus leaves a leftover and no damaged file.

    Args:
        path: The file.
        magic: Eight bytes that say what kind of file it is.

    Raises:
        StoreError: From every method, if the disk is full or the folder cannot be written; the
            file aside is gone then.
    """

    def __init__(self, path: Path, magic: bytes) -> None:
        self.path = path
        self._magic = magic
        self._aside = aside_name(path)
        with explain_write_errors(path, resumable=True):
            self._file = open(self._aside, "xb", buffering=0)  # noqa: SIM115 (closed by both ends)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        left = memoryview(data)
        with self._aborting():
            while left:
                left = left[self._file.write(left) :]

    def commit(self, footer: Mapping[str, Any]) -> None:
        """Finish the file: from here on neither a kill nor a power cut can damage it."""
        self.write(seal(footer, self._magic))
        with self._aborting():
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._aside, self.path)
            sync_folder(self.path.parent)

    def abort(self) -> None:
        """Discard what was written."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._aside.unlink()

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            with explain_write_errors(self.path, resumable=True):
                yield
        except StoreError:
            self.abort()
            raise


class Footer(NamedTuple):
    """The footer of a sealed file.

    Attributes:
        values: Its JSON.
        start: Where it begins: the number of bytes of content before it.
    """

    values: Any
    start: int


def seal(footer: Mapping[str, Any], magic: bytes, *, with_digest: bool = False) -> bytes:
    """A footer as the bytes at a file's end: JSON, its length, its sha256 if asked, the magic."""
    text = canonical_json(footer).encode()
    digest = hashlib.sha256(text).digest() if with_digest else b""
    return text + _LENGTH.pack(len(text)) + digest + magic


def read_footer(
    handle: int, magic: bytes, *, with_digest: bool = False, most_bytes: int = 16 << 20
) -> Footer | None:
    """The footer of an open file; None if the file does not end with the magic.

    Args:
        handle: File descriptor; its position does not matter and does not change.
        magic: As it was written.
        with_digest: As it was written.
        most_bytes: Above this the length is damaged.

    Raises:
        ValueError: If it is damaged.
    """
    size = os.fstat(handle).st_size
    n_tail = _LENGTH.size + (_DIGEST_BYTES if with_digest else 0) + _MAGIC_BYTES
    tail = os.pread(handle, n_tail, max(size - n_tail, 0))
    if len(tail) < n_tail or not tail.endswith(magic):
        return None
    (length,) = _LENGTH.unpack_from(tail)
    start = size - n_tail - length
    if start < 0 or not 0 < length <= most_bytes:
        raise ValueError("its end is damaged")
    text = os.pread(handle, length, start)
    if with_digest and hashlib.sha256(text).digest() != tail[_LENGTH.size : -_MAGIC_BYTES]:
        raise ValueError("its checksum differs")
    return Footer(parse_json(text), start)
