"""Files that a command writes: none may be one that it reads, or another that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Named = Sequence[tuple[str, Path]]
"""Paths, each with the option that names it."""


def require_apart(outputs: Named, inputs: Named) -> None:
    """Raise if an output is an input, or two outputs are one file, by whatever name.

    Raises:
        UsageError: Naming both.
    """
    from tspcli.errors import UsageError

    taken = {_place(path): (option, path) for option, path in inputs}
    for option, path in outputs:
        place = _place(path)
        if place in taken:
            other, its_path = taken[place]
            raise UsageError(
                f"{option} ({path}) is the same file as {other} ({its_path}), which it would "
                "overwrite.",
                remedy=f"Give {option} another path.",
            )
        taken[place] = (option, path)


def _place(path: Path) -> object:
    """What two names of one file have in common."""
    try:
        found = path.stat()
    except OSError:
        return path.absolute().resolve()
    return found.st_dev, found.st_ino
