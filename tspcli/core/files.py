"""Files that are either complete or absent: written aside, synced, renamed into place.

One file is written through :func:`replacing`, files and folders that belong together through
:func:`replacing_together`; :mod:`tspcli.core.sealed_file` serves files that grow piece by piece.
The rest is what they and their callers need: leftovers of killed writers, errors of a full disk
explained, room checked, sha256, and the cache folder.
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
"""How much of a file's name begins the names beside it."""
_LONGEST_NAME_BYTES = 255
"""What file systems accept as one name."""
_PRIVATE = 0o600
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FRAME_BYTES = 4096
"""What HDF5 writes of a dataset besides its rows, generously, and not before the file is closed."""
_SPARE = 8
_BLOCK_BYTES = 1 << 20


# --- writing aside --------------------------------------------------------------------------------


@contextmanager
def replacing(
    path: str | Path, *, resumable: bool = False, error: type[TspError] = StoreError
) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success sync it and rename it into place.

    On any error the temporary file is removed and what was at ``path`` stays as it was. Until it is
    complete nobody else may read it; then it has the mode of the file before it, or a new file's.

    Args:
        path: The file; its folder is created where it is missing.
        resumable: See :func:`explain_write_errors`.
        error: See there.

    Raises:
        TspError: Of the kind ``error``, if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with explain_write_errors(path, resumable=resumable, error=error):
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


@contextmanager
def replacing_together(*paths: Path, error: type[TspError] = StoreError) -> Iterator[list[Path]]:
    """Give a temporary path for each of several files or folders that stand side by side.

    The caller creates every one of them. On success all are synced and take their places in the
    order given, so whoever sees the last one finds the others. On any error what was written is
    removed.

    Args:
        paths: In one folder, which is created where it is missing.
        error: See :func:`explain_write_errors`.

    Raises:
        TspError: Of the kind ``error``, if the disk is full or the folder cannot be written.
    """
    last = paths[-1]
    folder = aside_name(last)
    with explain_write_errors(last, error=error):
        last.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        try:
            new = [folder / path.name for path in paths]
            yield new
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    sync_file(file)
            for number, (source, place) in enumerate(zip(new, paths, strict=True)):
                _exchange(source, place, folder / f"old-{number}")
            sync_folder(last.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _exchange(new: Path, place: Path, old: Path) -> None:
    """Rename a file or a folder into its place; a folder that is there is renamed to ``old``."""
    if not place.is_dir():
        os.replace(new, place)
        return
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise


def duplicate(source: Path, target: Path) -> None:
    """Put a file under a second name, in the place of what is there: by a link or as a copy."""
    aside = aside_name(target)
    try:
        link_or_copy(source, aside)
        os.replace(aside, target)
        sync_folder(target.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name that is still free; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    # Some file systems have no modes.
    with suppress(OSError):
        path.chmod(mode)


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


# --- what killed writers leave --------------------------------------------------------------------


def aside_name(path: Path) -> Path:
    """A new hidden name beside ``path`` for what is not complete yet."""
    return path.with_name(f"{_aside_start(path)}{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_leftovers(path: Path) -> int:
    """Remove what killed writers of ``path`` left beside it; return how many files or folders.

    Only for a caller that knows that nobody else is writing ``path``.
    """
    # Another path whose name begins alike may be at work, so names must match to the last digit.
    name = re.compile(re.escape(_aside_start(path)) + r"\d+-[0-9a-f]{8}\.tmp")
    try:
        leftovers = [found for found in path.parent.iterdir() if name.fullmatch(found.name)]
    except FileNotFoundError:
        return 0
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with suppress(OSError):
                leftover.unlink()
    return len(leftovers)


def _aside_start(path: Path) -> str:
    """How the names beside ``path`` begin; a long name is cut, so that there is room for more."""
    name = os.fsencode(path.name)
    if len(name) > _MAX_NAME_BYTES:
        # The names of shards differ at their end.
        digest = hashlib.blake2b(name, digest_size=8).hexdigest()
        name = name[:_MAX_NAME_BYTES].decode("utf-8", "ignore").encode() + digest.encode()
    return f".{os.fsdecode(name)}."


# --- what can go wrong ----------------------------------------------------------------------------


@contextmanager
def explain_write_errors(
    path: Path, *, resumable: bool = False, error: type[TspError] = StoreError
) -> Iterator[None]:
    """Turn the operating system's refusal to write into an error that says what to do.

    Args:
        path: What is written.
        resumable: Whether the same command, run again, resumes with what was finished.
        error: The kind of error.
    """
    try:
        yield
    except OSError as problem:
        if is_full(problem):
            raise error(
                f"The disk is full while writing {path} ({_free(path)} free).",
                remedy="Free some space and run the same command again"
                + ("; what was finished is kept." if resumable else "."),
                path=path,
            ) from problem
        words = f"{path} cannot be written: {problem.strerror or problem}."
        remedy = "Check that the folder exists and that you may write there."
        if problem.errno == errno.ENAMETOOLONG:
            words, remedy = too_long(path), ""
        elif problem.errno in (errno.ENOTDIR, errno.EEXIST):
            blocking = [parent for parent in path.parents if parent.is_file()]
            remedy = f"{blocking[0]} is a file; name a folder." if blocking else remedy
        raise error(words, remedy=remedy or None, path=path) from problem


def too_long(path: Path) -> str:
    """What is wrong with a path that the file system finds too long."""
    name = max(path.parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        what, count = f"name {name[:40]!r}…", len(os.fsencode(name))
    else:
        what, count = f"path {str(path)[:40]!r}…", len(os.fsencode(path))
    return f"The {what} has {count} bytes, which is too long for the file system."


def is_full(error: OSError) -> bool:
    """Whether a disk is full; HDF5 hides the error number in its text, numpy has none."""
    words = ("No space left", "errno = 28", " requested and ")
    return error.errno in _FULL or any(text in str(error) for text in words)


def require_room(path: Path, n_bytes: int, n_datasets: int) -> None:
    """Check that a disk has room for what HDF5 is about to write.

    HDF5 cannot recover from a write that fails: it tries again when it closes the file, and once
    more when the process ends, which crashes it.

    Args:
        path: The HDF5 file.
        n_bytes: Bytes of the rows that come next.
        n_datasets: How many datasets the file then holds.

    Raises:
        OSError: If there is none. Passing is no promise: others write too, and quotas are not seen.
    """
    status = os.statvfs(path.parent)
    # Some file systems report no sizes.
    needed = n_bytes + _FRAME_BYTES * (n_datasets + _SPARE)
    if status.f_blocks and status.f_bavail * status.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _free(path: Path) -> str:
    with suppress(OSError):
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        return f"{free / 1e6:.1f} MB"
    return "unknown space"


# --- paths and contents ---------------------------------------------------------------------------


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path, links left as they are: a link's own name is its video's name."""
    return os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps ..)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def has_sha256(path: Path, digits: str) -> bool:
    """Whether a file's sha256 begins with these hexadecimal digits."""
    return file_sha256(path).startswith(digits.lower())


# --- the cache ------------------------------------------------------------------------------------


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
            path=folder,
        ) from error
    return folder
