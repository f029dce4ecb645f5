"""Opening an HDF5 file for reading, and the true reason where that fails.

A file that cannot be opened may be sound: another program has it open for writing, the file system
has no locks, or a program that was writing it was killed and left its mark. None of these is a
reason to compute anything again. Otherwise it may be a file of another kind, which is named.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import h5py

from tspcli.core.video_names import VIDEO_SUFFIXES
from tspcli.errors import StoreError, StoreLockedError

LAYOUT = (
    "A store is an HDF5 file with one dataset of shape (rows, width) per video at its root; "
    "docs/store.md shows how to write one from arrays."
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCKS = (2, 3)
"""Versions of the superblock that format 2 may have, which other programs rarely write."""
_SUPERBLOCK_BYTES = 48
_MARKS = 11
"""Where version 3 states that a program has the file open for writing; 0 if none has."""

_ZIP = "a zip archive"
_CONTAINERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"PK\x03\x04", _ZIP),
    (0, b"MATLAB 5.0", "a MATLAB file of a version before 7.3"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz"),
    (0, b"(\xb5/\xfd", "compressed with zstd"),
    (257, b"ustar", "a tar archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"CDF", "a NetCDF file of a version before 4"),
    (16, b"\xde\xc0\xef\xbe", "an LMDB database"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` fetches the file itself"),
    (0, b"<", "a web page or XML"),
    (0, b"{", "JSON"),
    (0, b"[", "JSON"),
)
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, also on a file system without locks.

    Raises:
        StoreLockedError: If another program has it open for writing, with ``holder`` in its data.
        StoreError: If it cannot be opened for another reason, with ``kind`` in its data:
            ``marked-open``, ``unreadable`` or ``not-hdf5``.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno != errno.EAGAIN:
            # There are no locks here, or this process has opened it without.
            with suppress(OSError):
                return h5py.File(path, "r", locking=False)
        require_closed(path)
        raise _explained(path, error) from error


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do, whoever has it open."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # A block of another program's may stand before it.
            at = 0
            while at + len(_SIGNATURE) <= size:
                file.seek(at)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return True
                at = max(512, 2 * at)
    except OSError:
        return False
    return False


def require_closed(path: Path) -> None:
    """Raise if a program has a file open for writing, or was killed while it had.

    Raises:
        StoreLockedError: If one has.
        StoreError: If one was killed.
    """
    require_no_writer(path)
    if is_marked_open(path):
        raise StoreError(
            f"{path} is marked as open for writing: a program that had it open was killed, or has "
            "it open still, on a file system without locks.",
            remedy=f"If none has, `tsp doctor {path} --repair` removes the mark; nothing has to be "
            "computed again.",
            path=path,
            kind="marked-open",
        )


def require_no_writer(path: Path) -> None:
    """Raise if another program has a file open for writing, and locked.

    Raises:
        StoreLockedError: If one has, with it as ``holder`` in its data.
    """
    if (holder := _holder(path)) is not None:
        raise StoreLockedError(
            f"{path} is open for writing in {holder}.",
            remedy="Close it there, and give the same command again; nothing has to be computed "
            "again.",
            path=path,
            holder=holder,
        )


def hdf5_end(file: IO[bytes]) -> int | None:
    """The length that the superblock of an HDF5 file states; None in old versions of it."""
    head = _superblock(file)
    return None if head is None else int.from_bytes(head[28:36], "little")


def is_marked_open(path: Path) -> bool:
    """Whether an HDF5 file states that a program has it open for writing."""
    try:
        with open(path, "rb") as file:
            head = _superblock(file)
    except OSError:
        return False
    return head is not None and head[8] == 3 and bool(head[_MARKS])


def remove_mark(path: Path) -> None:
    """Let an HDF5 file state that no program has it open, as HDF5's ``h5clear`` does.

    Args:
        path: The file, which nobody may have open.
    """
    with open(path, "r+b") as file:
        head = bytearray(_superblock(file) or b"")
        head[_MARKS] = 0
        head[44:48] = _lookup3(bytes(head[:44])).to_bytes(4, "little")
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _superblock(file: IO[bytes]) -> bytes | None:
    """The superblock at the start of a file; None if there is none of :data:`_SUPERBLOCKS`."""
    file.seek(0)
    head = file.read(_SUPERBLOCK_BYTES)
    known = head.startswith(_SIGNATURE) and len(head) == _SUPERBLOCK_BYTES
    return head if known and head[8] in _SUPERBLOCKS else None


def _lookup3(data: bytes) -> int:
    """Bob Jenkins' ``lookup3`` of whole words, the checksum of HDF5's metadata."""
    full = 0xFFFFFFFF
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    a = b = c = (0xDEADBEEF + len(data)) & full

    def less(x: int, y: int, z: int, turn: int) -> int:
        """``(x - y) ^ rotated z``."""
        return ((x - y) ^ (z << turn | z >> (32 - turn))) & full

    def mixed(x: int, y: int, turn: int) -> int:
        """``(x ^ y) - rotated y``."""
        return ((x ^ y) - ((y << turn | y >> (32 - turn)) & full)) & full

    while len(words) > 3:
        a, b, c = ((x + word) & full for x, word in zip((a, b, c), words[:3], strict=True))
        words = words[3:]
        a, c = less(a, c, c, 4), (c + b) & full
        b, a = less(b, a, a, 6), (a + c) & full
        c, b = less(c, b, b, 8), (b + a) & full
        a, c = less(a, c, c, 16), (c + b) & full
        b, a = less(b, a, a, 19), (a + c) & full
        c, b = less(c, b, b, 4), (b + a) & full
    words += [0] * (3 - len(words))
    a, b, c = ((x + word) & full for x, word in zip((a, b, c), words, strict=True))
    c = mixed(c, b, 14)
    a = mixed(a, c, 11)
    b = mixed(b, a, 25)
    c = mixed(c, b, 16)
    a = mixed(a, c, 4)
    b = mixed(b, a, 14)
    return mixed(c, b, 24)


def _holder(path: Path) -> str | None:
    """The program that has an HDF5 file open for writing and locked, in words; None if none has."""
    try:
        with open(path, "rb") as file:
            try:
                # Shared, and released at once: only a writer prevents it.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _lock_owner(os.fstat(file.fileno())) or "another program"
    except OSError:
        return None
    return None


def _lock_owner(status: os.stat_result) -> str | None:
    """The process that Linux lists as the holder of a file's lock."""
    device, inode = status.st_dev, status.st_ino
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if place in words and words[3] == "WRITE":
                process = int(words[4])
                if process == os.getpid():
                    return "this process"
                with suppress(OSError):
                    command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                    shown = b" ".join(command[:3]).decode("utf-8", "replace").strip()
                    return f"process {process} ({shown[:80]})"
                return f"process {process}"
    return None


def _explained(path: Path, error: OSError) -> StoreError:
    if is_hdf5(path) or not os.access(path, os.R_OK):
        return StoreError(
            f"{path} cannot be opened as HDF5 ({error}).",
            remedy="If it was a feature store, restore it from a copy or compute it again.",
            path=path,
            kind="unreadable",
        )
    found = _container(path)
    return StoreError(
        f"{path} is not an HDF5 file{f', but {found}' if found else ''}.",
        remedy=LAYOUT,
        path=path,
        kind="not-hdf5",
        found=found,
    )


def _container(path: Path) -> str | None:
    """What a file is that is not HDF5, in words, as far as its first bytes show."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "a video: `tsp extract` computes its features"
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.startswith(_PICKLES):
        return "a pickle"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    for at, magic, what in _CONTAINERS:
        if head.startswith(magic, at) or (not at and text.startswith(magic)):
            return _archive(path) if what == _ZIP else what
    return "text" if head.isascii() and b"\0" not in head else None


def _archive(path: Path) -> str:
    """What kind of zip archive a file is."""
    with suppress(OSError, zipfile.BadZipFile):
        names = zipfile.ZipFile(path).namelist()
        if names and all(name.endswith(".npy") for name in names):
            return "NumPy arrays (.npz)"
        if any(name.endswith("data.pkl") for name in names):
            return "a file of torch.save"
    return _ZIP
