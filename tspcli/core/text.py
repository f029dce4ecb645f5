"""Text that goes out (counts, durations, paths, JSON) and text that others wrote, coming in."""

from __future__ import annotations

import csv
import functools
import json
import os
import struct
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from tspcli.errors import TspError


def counted(count: int, what: str, many: str | None = None) -> str:
    """A number and what it counts, in the plural (``many``, or with an s) unless it is one.

    >>> counted(1, "video"), counted(0, "video"), counted(2, "common video")
    ('1 video', '0 videos', '2 common videos')
    >>> counted(2, "class", "classes")
    '2 classes'
    """
    return f"{count} {what}" if count == 1 else f"{count} {many or what + 's'}"


def clock(seconds: float) -> str:
    """A duration as people read it.

    >>> clock(7503), clock(303.2)
    ('2:05:03', '5:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def storable(text: str | os.PathLike[str]) -> str:
    r"""Text or a path as valid UTF-8: bytes of a name that are not become escapes.

    >>> storable("v_\udcff.mp4")
    'v_\\udcff.mp4'
    """
    return os.fspath(text).encode("utf-8", "backslashreplace").decode()


def canonical_json(value: object) -> str:
    """One text per value: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def first_line(error: BaseException, most: int = 300) -> str:
    r"""The first line of what an error says, so many characters at most; its kind if it is mute.

    >>> first_line(ValueError("one\ntwo")), first_line(ValueError())
    ('one', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


MALFORMED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError),
    *(RecursionError, MemoryError, csv.Error, struct.error),
)
"""What reading a file in a format of one's own raises when the file is not in it."""

Params = ParamSpec("Params")
Result = TypeVar("Result")


def refuses_damage(
    error: type[TspError], remedy: str
) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Let a reader, whose first argument is the file, raise ``error`` for what it did not foresee.

    Args:
        error: The kind of error.
        remedy: What to do about it.
    """

    def decorate(read: Callable[Params, Result]) -> Callable[Params, Result]:
        @functools.wraps(read)
        def reading(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            try:
                return read(*args, **kwargs)
            except MALFORMED as problem:
                path = next(iter([*args, *kwargs.values()]), "the file")
                raise error(
                    f"{path} is damaged ({type(problem).__name__}: {str(problem)[:300]}).",
                    remedy=remedy,
                ) from problem

        return reading

    return decorate


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return found


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: If it is not JSON, nests too deeply, has one key of an object twice, of which
            Python would silently keep the last, or holds half of a surrogate pair, which no
            encoding takes.
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
        escaped = "\\ud" in text.lower() if isinstance(text, str) else b"\\ud" in text.lower()
        if escaped:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return value
