"""One writer a store.

The report that a run leaves beside its store.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tspcli.core.files import explain_write_errors
from tspcli.core.text import MALFORMED, parse_json
from tspcli.errors import StoreError, StoreLockedError

# A link in its place, in a folder that others write to, might lead to any file of the user's.
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def lock_store(store: Path) -> Iterator[None]:
    """Hold the store's lock; the kernel lets go of it however the process ends.

    Raises:
        StoreLockedError: If another run holds it, naming that run's host and process.
        StoreError: If the folder cannot be written, or its file system has no locks.
    """
    path = store.with_name(f"{store.name}.lock")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    patience = 3
    while True:
        with explain_write_errors(path):
            handle = os.open(path, _OPEN, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            # A reader that asks who writes holds it for an instant (`writer_of`).
            if patience := patience - 1:
                time.sleep(0.02)
                continue
            raise StoreLockedError(
                f"{store} is being written by another run ({owner}).",
                remedy="Wait for it, stop it, or give another --out.",
                path=store,
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
            break
        os.close(handle)
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


def writer_of(store: Path) -> str | None:
    """The run that holds a store's lock now, in words; None if there is none."""
    try:
        handle = os.open(store.with_name(f"{store.name}.lock"), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # Shared, and let go of at once: only a writer keeps it away.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


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
        return "it has not told its name yet"


def report_path(store: str | Path) -> Path:
    """Where the report of a store lies: ``feats.h5.report.json``."""
    store = Path(store)
    return store.with_name(store.name + ".report.json")


def read_report(store: Path) -> dict[str, Any] | None:
    """The report of the run that made a store, or None if it left none.

    Returns:
        What :meth:`tspcli.extraction.run_report.ExtractReport.to_dict` tells; every one of its
        ``videos`` has a ``key`` and a ``status``.

    Raises:
        StoreError: If it is damaged.
    """
    path = report_path(store)
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
        ) from error
    return report
