"""What videos are called: their file suffixes, their keys in a store, and ActivityNet's ``v_``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

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


def find_name(name: str, known: Collection[str]) -> str | None:
    """The name under which a video called ``name`` is known, with or without ``v_``, or None.

    Names that Unicode holds to be equivalent, such as composed and decomposed accents, are one.

    Raises:
        AnnotationError: If ``name`` could mean either of two known names.
    """
    return name if name in known else _one_of(name, _others(name, known, _by_form([name], known)))


def pair_names(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Pair names of the same videos, which may differ by ``v_`` and by equivalent Unicode forms.

    Equal names are paired before all others. Each other name is then looked up by itself, because
    an ID may begin with ``v_``, and one odd name says nothing about the others.

    Args:
        ours: The names to look up.
        theirs: The names among which they are looked up.

    Returns:
        Their names by ours, for those that are found; no two of ours have one of theirs.

    Raises:
        AnnotationError: If a name could mean either of two others.
    """
    pairs = {name: name for name in ours if name in theirs}
    forms = _by_form(ours, theirs)
    claimed: dict[str, str] = {}
    for name in ours:
        if name in pairs:
            continue
        # A name that is equal to one of ours is already paired.
        found = _one_of(name, [x for x in _others(name, theirs, forms) if x not in pairs])
        if found is None:
            continue
        if found in claimed:
            raise AnnotationError(
                f"{found!r} may be {claimed[found]!r} or {name!r}, which differ from it only by a "
                "'v_' or in their Unicode form.",
                remedy="Rename one of them.",
                video=found,
            )
        claimed[found] = name
    return pairs | {name: found for found, name in claimed.items()}


def canonical(name: str) -> str:
    """A name in the one of its equivalent Unicode forms that names are compared in."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class Spellings:
    """The spelling in which each name was met first, of those that Unicode holds to be one."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def first(self, name: str) -> str:
        """The first spelling of a name, which is ``name`` itself if it is new."""
        return name if name.isascii() else self._first.setdefault(canonical(name), name)


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


def _by_form(ours: Collection[str], theirs: Collection[str]) -> Mapping[str, list[str]]:
    """Those of their names that are not ASCII by their canonical form, if any of ours is not."""
    forms: dict[str, list[str]] = {}
    if not all(name.isascii() for name in ours):
        for name in theirs:
            if not name.isascii():
                forms.setdefault(canonical(name), []).append(name)
    return forms


def _others(name: str, known: Collection[str], forms: Mapping[str, list[str]]) -> list[str]:
    """The known names that ``name`` may stand for: its other Unicode forms, else with ``v_``."""
    own = canonical(name)
    bare = own.removeprefix(PREFIX)
    for spellings in ([own], [*([bare] if bare and bare != own else []), PREFIX + own]):
        found = [x for s in spellings for x in (s, *forms.get(s, ())) if x in known and x != name]
        if found:
            return list(dict.fromkeys(found))
    return []


def _one_of(name: str, found: list[str]) -> str | None:
    if len(found) > 1:
        raise AnnotationError(
            f"{name!r} may be {found[0]!r} or {found[1]!r}, which differ from it only by a 'v_' or "
            "in their Unicode form.",
            remedy="Rename one of them.",
            video=name,
        )
    return found[0] if found else None


def _escape(match: re.Match[str]) -> str:
    try:
        data = match[0].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = match[0].encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
