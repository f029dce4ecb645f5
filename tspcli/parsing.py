"""Files that others wrote: whatever is wrong with one becomes an error with a remedy."""

from __future__ import annotations

import csv
import functools
import json
import struct
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from tspcli.errors import TspError

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


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: If it is none, nests too deeply, or holds half of a surrogate pair, which no
            file can be given as a name and no encoding takes.
    """
    try:
        value = json.loads(text)
        escaped = "\\ud" in text.lower() if isinstance(text, str) else b"\\ud" in text.lower()
        if escaped:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return value
