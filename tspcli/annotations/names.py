"""What videos are called: ActivityNet's files say ``v_ID``, some of its annotations ``ID``."""

from __future__ import annotations

from collections.abc import Container, Iterable

PREFIX = "v_"
"""What ActivityNet's file names put before the video's ID."""

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts")


def shared_prefix(names: Iterable[str]) -> str:
    """``v_`` if there are names and all start with it, else nothing.

    Decided for a whole file, not name by name: an ID may itself begin with ``v_``.
    """
    names = list(names)
    return PREFIX if names and all(name.startswith(PREFIX) for name in names) else ""


def canonical_id(name: str, prefix: str) -> str:
    """The name without its file's prefix, by which files with and without ``v_`` meet."""
    return name.removeprefix(prefix)


def find_name(name: str, known: Container[str]) -> str | None:
    """The name under which a video called ``name`` is known, with or without ``v_``, or None."""
    for other in (name, name.removeprefix(PREFIX), PREFIX + name):
        if other in known:
            return other
    return None


def without_suffix(name: str) -> str:
    """A video's name without folders and without its file extension, if it has a video's."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in VIDEO_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base
