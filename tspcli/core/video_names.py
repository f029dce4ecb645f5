"""What videos are called: their file suffixes, their keys in a store, and ActivityNet's ``v_``."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable

from tspcli.errors import AnnotationError

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "m1v", "m2ts", "m2v", "m4v"),
        *("mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "ogm", "ogv"),
        *("qt", "rm", "rmvb", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
"""What counts as a video inside a folder, and what names of videos may or may not carry elsewhere.

A file that is named itself may have any suffix.
"""

# C0 and C1 controls, and the surrogates that stand for bytes that are no UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f/\ud800-\udfff]")

PREFIX = "v_"
"""What ActivityNet's file names put before the video's ID."""


def find_name(name: str, known: Container[str]) -> str | None:
    """The name under which a video called ``name`` is known, with or without ``v_``, or None.

    Raises:
        AnnotationError: If it is known both with one ``v_`` more and with one less.
    """
    return name if name in known else _one_of(name, [x for x in _spellings(name) if x in known])


def pair_names(ours: Collection[str], theirs: Container[str]) -> dict[str, str]:
    """Which name of ``theirs`` each of ``ours`` is, with or without ``v_``.

    Equal names belong together before all others; then each name is sought by itself, because an ID
    may begin with ``v_`` and one odd name tells nothing of the others.

    Args:
        ours: The names to find.
        theirs: The names among which they are sought.

    Returns:
        Theirs by ours, of those that are found; no two of ours are one of theirs.

    Raises:
        AnnotationError: If it cannot be told which of two names is meant.
    """
    pairs = {name: name for name in ours if name in theirs}
    claimed: dict[str, str] = {}
    for name in ours:
        if name in pairs:
            continue
        # What is equal to one of ours is that one.
        free = [other for other in _spellings(name) if other in theirs and other not in pairs]
        found = _one_of(name, free)
        if found is None:
            continue
        if found in claimed:
            raise AnnotationError(
                f"{found!r} may be {claimed[found]!r} or {name!r}: both differ from it by a 'v_'.",
                remedy="Rename one of them.",
            )
        claimed[found] = name
    return pairs | {name: found for found, name in claimed.items()}


def shared_prefix(names: Iterable[str]) -> str:
    """``v_`` if there are names and it stands before something in all of them, else nothing."""
    names = list(names)
    has = all(name.startswith(PREFIX) and name != PREFIX for name in names)
    return PREFIX if names and has else ""


def without_suffix(name: str) -> str:
    """A video's name without folders and without its file extension, if it has a video's."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = base.rpartition(".")
    return stem if stem and dot + ending.lower() in VIDEO_SUFFIXES else base


def store_key(text: str) -> str:
    r"""A name as a key that HDF5, CSV files and terminals can take.

    Control characters, slashes and bytes that are no UTF-8 become ``%XX``, one for each byte, and
    so do the dots of ``.`` and ``..``; everything else stays as it is.

    >>> store_key("v_abc"), store_key("50% off"), store_key("a\nb"), store_key("..")
    ('v_abc', '50% off', 'a%0Ab', '%2E%2E')
    """
    if text in (".", ".."):
        return text.replace(".", "%2E")
    return _UNSAFE.sub(_escape, text)


def _spellings(name: str) -> list[str]:
    """The other names that a video may have elsewhere."""
    bare = name.removeprefix(PREFIX)
    return [*([bare] if bare and bare != name else []), PREFIX + name]


def _one_of(name: str, found: list[str]) -> str | None:
    if len(found) > 1:
        raise AnnotationError(
            f"{name!r} may be {found[0]!r} or {found[1]!r}: both differ from it by a 'v_'.",
            remedy="Rename one of them.",
        )
    return found[0] if found else None


def _escape(match: re.Match[str]) -> str:
    try:
        data = match[0].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = match[0].encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
