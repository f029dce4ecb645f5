"""An output that is either whole or not there: built beside its place, then renamed into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tspcli.errors import ExportError
from tspcli.features.atomic import aside_name, is_full, remove_leftovers, sync_file, sync_folder
from tspcli.features.lock import lock_store

MANIFEST = "export.json"
"""Written into every export; a folder with it may be replaced, others never."""


@dataclass(frozen=True)
class Staging:
    """Where an export is built.

    Attributes:
        main: The future output: a folder that exists, or the path of a file to write.
        companions: The folder for annotations, snippets and the manifest. For a folder output it
            is that folder.
        n_cleared: How many unfinished exports to the same place were found and removed.
    """

    main: Path
    companions: Path
    n_cleared: int = 0


def companions_of(out: Path) -> Path:
    """The folder beside a single exported file: ``anet.hdf5.export``."""
    return out.with_name(out.name + ".export")


def check_free(out: Path, *, is_file: bool, overwrite: bool) -> None:
    """Raise unless the output may be written.

    Raises:
        ExportError: If something is there and may not be replaced.
    """
    for path in (out, companions_of(out)) if is_file else (out,):
        if not path.exists() and not path.is_symlink():
            continue
        is_main_file = is_file and path == out
        if path.is_dir() == is_main_file:
            what = "folder" if path.is_dir() else "file"
            raise ExportError(f"{path} is a {what}.", remedy="Give another --out.")
        if path.is_dir() and not any(path.iterdir()):
            continue
        if not overwrite:
            raise ExportError(
                f"{path} exists already.", remedy="Give another --out, or --overwrite."
            )
        if path.is_dir() and not (path / MANIFEST).is_file():
            raise ExportError(
                f"{path} holds other things than an export, so it is not replaced.",
                remedy="Give another --out, or remove that folder yourself.",
            )


@contextmanager
def staged(out: Path, *, is_file: bool, overwrite: bool) -> Iterator[Staging]:
    """Build an export aside; rename it into place on success, leave nothing behind on failure.

    Args:
        out: The folder or file to write.
        is_file: Whether the output is one file with its companions in a folder beside it.
        overwrite: Replace an earlier export.

    Raises:
        ExportError: If the output is there already, or the disk is full or not writable.
        StoreLockedError: If another process exports to the same place.
    """
    with lock_store(out):
        check_free(out, is_file=is_file, overwrite=overwrite)
        with _built_aside(out, is_file=is_file) as staging:
            yield staging


@contextmanager
def _built_aside(out: Path, *, is_file: bool) -> Iterator[Staging]:
    """Do it, for a caller that holds the lock and has checked the place."""
    # The lock is held, so nobody else is writing there.
    n_cleared = remove_leftovers(out)
    aside = aside_name(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        if is_file:
            staging = Staging(aside / out.name, aside / companions_of(out).name, n_cleared)
            staging.companions.mkdir()
        else:
            staging = Staging(aside / "export", aside / "export", n_cleared)
            staging.main.mkdir()
        yield staging
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                sync_file(path)
        if is_file:
            # The file itself comes last: whoever sees it finds its companions.
            _replace(staging.companions, companions_of(out), aside)
        _replace(staging.main, out, aside)
        sync_folder(out.parent)
    except OSError as error:
        if is_full(error):
            raise ExportError(
                f"The disk is full while writing {out}. Nothing was left there.",
                remedy="Free some space and run the same command again.",
            ) from error
        raise ExportError(
            f"{out} cannot be written: {error.strerror or error}.",
            remedy="Check that the folder exists and that you may write there.",
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(aside)


def _replace(new: Path, place: Path, aside: Path) -> None:
    if not place.is_dir():
        os.replace(new, place)
        return
    old = aside / f"old-{place.name}"
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise
