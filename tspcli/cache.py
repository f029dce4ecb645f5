"""Where files that were fetched once are kept, so that everything works offline afterwards."""

from __future__ import annotations

import os
from pathlib import Path

from tspcli.errors import TspError


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
