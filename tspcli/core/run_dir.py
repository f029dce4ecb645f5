"""What a run that writes files stands on: one writer, its own folder, its settings, its report.

A run holds :func:`one_writer` while it writes. Whether it may resume what lies in its place is
decided by :func:`require_same` and, for a run with a folder of its own, :class:`RunDir`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tspcli.core.files import explain_write_errors, remove_leftovers
from tspcli.core.text import MALFORMED, parse_json
from tspcli.errors import StoreError, StoreLockedError, TrainingError, TspError

# A link in its place, in a folder that others write to, might lead to any file of the user's.
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_ATTEMPTS = 3
_RETRY_S = 0.02


# --- one writer -----------------------------------------------------------------------------------


@contextmanager
def one_writer(out: Path) -> Iterator[None]:
    """Hold the lock of an output; the kernel releases it however the process ends.

    Args:
        out: The file or folder that is written; the lock lies beside it as ``NAME.lock``.

    Raises:
        StoreLockedError: If another run holds it, naming that run's host and process.
        StoreError: If the folder cannot be written, or its file system has no locks.
    """
    path = _lock_path(out)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(path, out)
    try:
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        note = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        with explain_write_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(note).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            # If the folder was removed and made again meanwhile, another run's lock lies there.
            if _is_current(handle, path):
                path.unlink()
        os.close(handle)


def writer_of(out: Path) -> str | None:
    """The run that holds an output's lock now, in words; None if there is none."""
    try:
        handle = os.open(_lock_path(out), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # Shared, and released at once: only a writer prevents it.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _lock_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.lock")


def _acquire(path: Path, out: Path) -> int:
    """An open handle of the lock file that holds its lock."""
    attempts = _ATTEMPTS
    while True:
        with explain_write_errors(path):
            handle = os.open(path, _OPEN, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            # A reader that asks who writes holds it for an instant (`writer_of`).
            if attempts := attempts - 1:
                time.sleep(_RETRY_S)
                continue
            raise StoreLockedError(
                f"{out} is being written by another run ({owner}).",
                remedy="Wait for it, stop it, or give another --out.",
                path=out,
            ) from None
        except OSError as error:
            os.close(handle)
            # Lustre without the mount option `flock`, for one.
            raise StoreError(
                f"{path} cannot be locked: {error.strerror or error}.",
                remedy="Mount the file system with locks, or write to another one.",
                path=path,
            ) from error
        # The file may have been removed by its last holder between our open and our lock.
        if _is_current(handle, path):
            return handle
        os.close(handle)


def _is_current(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> str:
    try:
        note = parse_json(os.pread(handle, 4096, 0))
        return f"process {note['pid']} on {note['host']}, started {note['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its owner is not known yet"


# --- the same settings, or refuse -----------------------------------------------------------------


def differences(stored: Any, current: Any) -> dict[str, str]:
    """Where two nested sets of plain values differ.

    >>> differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 3}})
    {'a': '1, not nothing', 'b.c': '2, not 3'}
    """
    return dict(_differences(stored, current, ""))


def _differences(stored: Any, current: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        for key in sorted({*stored, *current}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(stored.get(key, _MISSING), current.get(key, _MISSING), inner)
    elif stored != current:
        yield name, f"{stored}, not {current}"


class _Missing:
    def __str__(self) -> str:
        return "nothing"


_MISSING = _Missing()


def require_same(
    stored: Any,
    current: Any,
    where: object,
    this: str = "this run",
    *,
    error: type[TspError] = TrainingError,
    remedy: str = "Give the settings it was made with, or another --out.",
    ignored: Collection[str] = (),
) -> None:
    """Raise if something was made with other settings, naming each that differs.

    Args:
        stored: Its settings, plain values nested at will.
        current: Those that are wanted.
        where: What was made with ``stored``.
        this: What wants ``current``.
        error: The kind of error; its ``data`` holds ``path`` and ``differences``.
        remedy: What to do about it.
        ignored: Dotted names that may differ.
    """
    found = {k: text for k, text in differences(stored, current).items() if k not in ignored}
    if found:
        shown = "; ".join(f"{name}: {text}" for name, text in found.items())
        raise error(
            f"{where} was made with other settings than {this}: {shown}.",
            remedy=remedy,
            path=where,
            differences=found,
        )


# --- a run's own folder ---------------------------------------------------------------------------


@dataclass(frozen=True)
class RunDir:
    """A folder that one run writes and may resume.

    Attributes:
        path: The folder.
        about: Name of the file that says which run it is; written first, so that a killed run is
            known by it.
        files: Names of all files that a run may write, in order of importance, ``about`` included.
    """

    path: Path
    about: str
    files: tuple[str, ...]

    @property
    def about_path(self) -> Path:
        """The file that says which run it is."""
        return self.path / self.about

    def present(self) -> list[Path]:
        """The files of a run that are there."""
        return [path for name in self.files if (path := self.path / name).exists()]

    def require_own(
        self,
        read: Callable[[Path], Mapping[str, Any]],
        identity: Mapping[str, Any],
        *,
        resume: bool = True,
        ignored: Collection[str] = (),
    ) -> bool:
        """Refuse a folder that holds another run or other files than a run's; write nothing.

        Args:
            read: Reads ``about``.
            identity: What ``about`` says if the folder holds this very run.
            resume: Whether this run may be resumed.
            ignored: Dotted names of the identity that are not compared.

        Returns:
            Whether the folder holds this run.

        Raises:
            TrainingError: With ``path`` in its data, and ``differences`` if it is another run's.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} is a file, not a folder.", path=self.path)
        present = self.present()
        if self.about_path in present:
            if not resume:
                raise TrainingError(
                    f"{self.path} already holds a run.",
                    remedy="Resume it (--resume), replace it (--overwrite), or give another --out.",
                    path=self.path,
                )
            require_same(
                read(self.about_path),
                identity,
                self.path,
                remedy="Resume with the settings it was started with, give another --out, or "
                "--overwrite.",
                ignored=ignored,
            )
            return True
        if present:
            raise TrainingError(
                f"{self.path} holds {present[0].name}, but no {self.about}: no run can resume from "
                "that, and this one would replace it.",
                remedy="Give another --out, or --overwrite.",
                path=present[0],
            )
        return False

    @contextmanager
    def opened(self, *, overwrite: bool = False) -> Iterator[None]:
        """Create the folder, hold its lock, and remove what killed runs left half written.

        Args:
            overwrite: Remove an earlier run's files too, the most important last.

        Raises:
            StoreLockedError: If another run writes there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with one_writer(self.about_path):
            for name in self.files:
                remove_leftovers(self.path / name)
            if overwrite:
                for name in reversed(self.files):
                    (self.path / name).unlink(missing_ok=True)
            yield


# --- the report beside an output ------------------------------------------------------------------


def report_path(out: str | Path) -> Path:
    """Where the report of a run lies: ``feats.h5.report.json``."""
    out = Path(out)
    return out.with_name(out.name + ".report.json")


def read_report(out: Path) -> dict[str, Any] | None:
    """The report of the run that made an output, or None if it left none.

    Returns:
        :meth:`tspcli.extraction.run_report.ExtractReport.to_dict`; each of its ``videos`` has a
        ``key`` and a ``status``.

    Raises:
        StoreError: If it is damaged.
    """
    path = report_path(out)
    try:
        report = dict(parse_json(path.read_text(encoding="utf-8")))
        for video in report["videos"]:
            _ = video["key"], video["status"]
        frozenset((report.get("shard") or {}).get("keys") or ())
    except FileNotFoundError:
        return None
    except MALFORMED as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            remedy="Delete it, or run the extraction again.",
            path=path,
        ) from error
    return report
