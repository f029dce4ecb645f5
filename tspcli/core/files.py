"""Files that are either whole or not there: written aside, synced, renamed into place.

Where files that were fetched once are kept, so that everything works offline afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tspcli.errors import StoreError, TspError

_MAX_NAME_BYTES = 100
"""So much of a name begins those beside it."""
_LONGEST_NAME_BYTES = 255
"""What file systems take as one name."""
_PRIVATE = 0o600
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FRAME_BYTES = 4096
"""What HDF5 writes of a dataset beside its rows, generously, and not before the file is closed."""
_SPARE = 8


@contextmanager
def write_aside(path: str | Path, *, goes_on: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success sync it and rename it into place.

    On any error the temporary file is removed and what was at ``path`` stays as it was. Until it is
    whole nobody else may read it; then it may be read by whom the file before it could, or a new
    file can.

    Args:
        path: The file.
        goes_on: As for :func:`explain_write_errors`.

    Raises:
        StoreError: If the disk is full or the folder cannot be written, with the folder named.
    """
    path = Path(path)
    with explain_write_errors(path, goes_on=goes_on):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = aside_name(path)
        aside.touch(exist_ok=False)
        try:
            mode = _mode(path if path.is_file() else aside)
            _set_mode(aside, _PRIVATE)
            yield aside
            _set_mode(aside, mode)
            sync_file(aside)
            os.replace(aside, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    # Some file systems have no modes.
    with suppress(OSError):
        path.chmod(mode)


def aside_name(path: Path) -> Path:
    """A new hidden name beside ``path`` for what is not whole yet."""
    return path.with_name(f"{_aside_start(path)}{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_leftovers(path: Path) -> int:
    """Remove what killed writers of ``path`` left beside it; return how many.

    Only for a caller that knows that nobody else writes ``path`` now.
    """
    leftovers = _leftovers(path)
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with suppress(OSError):
                leftover.unlink()
    return len(leftovers)


def _leftovers(path: Path) -> list[Path]:
    """What lies beside ``path`` under names of :func:`aside_name`.

    Nothing of another path whose name begins alike, for that may be at work.
    """
    # Not pathlib's glob, which has no way to say "digits alone".
    name = re.compile(re.escape(_aside_start(path)) + r"\d+-[0-9a-f]{8}\.tmp")
    try:
        return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]
    except FileNotFoundError:
        return []


def _aside_start(path: Path) -> str:
    """How names beside ``path`` begin; of a long name so much that there is room for the rest."""
    name = os.fsencode(path.name)
    if len(name) > _MAX_NAME_BYTES:
        # Shards' names differ at their end.
        digest = hashlib.blake2b(name, digest_size=8).hexdigest()
        name = name[:_MAX_NAME_BYTES].decode("utf-8", "ignore").encode() + digest.encode()
    return f".{os.fsdecode(name)}."


@contextmanager
def explain_write_errors(path: Path, *, goes_on: bool = False) -> Iterator[None]:
    """Turn the operating system's refusal to write into a :class:`StoreError`.

    Args:
        path: What is written.
        goes_on: Whether the same command, given again, goes on with what was finished.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StoreError(
                f"The disk is full while writing {path} ({_free(path)} free).",
                remedy="Free some space and run the same command again"
                + ("; what was finished is kept." if goes_on else "."),
            ) from error
        words = f"{path} cannot be written: {error.strerror or error}."
        remedy = "Check that the folder exists and that you may write there."
        if error.errno == errno.ENAMETOOLONG:
            words, remedy = too_long(path), "Give a shorter one."
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            blocking = [parent for parent in path.parents if parent.is_file()]
            remedy = f"{blocking[0]} is a file; name a folder." if blocking else remedy
        raise StoreError(words, remedy=remedy) from error


def too_long(path: Path) -> str:
    """What is wrong with a path that the system finds too long."""
    name = max(path.parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        what, count = f"name {name[:40]!r}…", len(os.fsencode(name))
    else:
        what, count = f"path {str(path)[:40]!r}…", len(os.fsencode(path))
    return f"The {what} has {count} bytes, which is too long for the file system."


def is_full(error: OSError) -> bool:
    """Whether it says that a disk is full; HDF5 hides the number in its text, numpy has none."""
    words = ("No space left", "errno = 28", " requested and ")
    return error.errno in _FULL or any(text in str(error) for text in words)


def require_room(path: Path, n_bytes: int, n_datasets: int) -> None:
    """See that a disk has room for what HDF5 is about to write.

    It could not recover from a write that fails: it tries it again when it closes the file, and at
    the process's end, where it crashes it.

    Args:
        path: The HDF5 file.
        n_bytes: Bytes of the rows that come next.
        n_datasets: How many datasets the file then holds.

    Raises:
        OSError: If it has not. That it has is no promise: others write, and quotas are not seen.
    """
    status = os.statvfs(path.parent)
    # Some file systems tell no sizes.
    needed = n_bytes + _FRAME_BYTES * (n_datasets + _SPARE)
    if status.f_blocks and status.f_bavail * status.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path, links left as they are: a link's own name is its video's name."""
    return os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps ..)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _free(path: Path) -> str:
    with suppress(OSError):
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        return f"{free / 1e6:.1f} MB"
    return "unknown space"


def cache_location() -> Path:
    """The cache folder's path, whether or not it exists.

    The environment decides: ``TSPCLI_HOME``, else ``tspcli`` below ``XDG_CACHE_HOME``, else
    ``~/.cache/tspcli``. Relative paths are taken from the current folder.

    Raises:
        TspError: If none of the three is set and the user has no home folder.
    """
    own = os.environ.get("TSPCLI_HOME")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared:
        return Path(shared).expanduser().absolute() / "tspcli"
    try:
        return Path.home() / ".cache" / "tspcli"
    except RuntimeError as error:
        raise TspError(
            f"There is no home folder for the cache ({error}).",
            remedy="Set TSPCLI_HOME to a folder that you may write to.",
        ) from error


def cache_dir(*parts: str) -> Path:
    """A folder of the cache, made where it is missing and readable by its owner alone.

    Args:
        parts: Names of folders below the cache folder, such as ``"weights"``.

    Raises:
        TspError: If it cannot be made.
    """
    folder = cache_location()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            folder = folder / part
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TspError(
            f"The cache folder {folder} cannot be made: {error.strerror or error}.",
            remedy="Set TSPCLI_HOME to a folder that you may write to.",
        ) from error
    return folder
