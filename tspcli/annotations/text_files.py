"""Opening the files that annotations come in, and reading the numbers in them."""

from __future__ import annotations

import csv
import gc
import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tspcli.core.text import parse_json
from tspcli.errors import AnnotationError

Row = dict[str, str | None]
"""A line of a table by column; None where the line is too short."""


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8.

    Raises:
        AnnotationError: If there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"There is no {what} {path}.", remedy="Check the path.") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"The {what} {path} is no text in UTF-8: {error}.",
            remedy="Give annotations, and save them as UTF-8.",
        ) from error
    except OSError as error:
        raise AnnotationError(
            f"The {what} {path} cannot be read: {error}.",
            remedy="Check that it is a file and that you may read it.",
        ) from error


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from searching millions of fresh objects for cycles, again and again.

    Reading a large JSON takes a third of the time so.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_json(path: str | Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        AnnotationError: If there is no such file or it is not JSON.
    """
    return json_value(read_text(path, what), path, what)


def json_value(text: str, path: str | Path, what: str) -> Any:
    """The value of a JSON file's text.

    Raises:
        AnnotationError: If it is not JSON.
    """
    try:
        with collector_paused():
            return parse_json(text)
    except ValueError as error:
        raise AnnotationError(
            f"The {what} {path} cannot be read as JSON: {error}.", remedy="Give the whole file."
        ) from error


def looks_like_json(text: str) -> bool:
    """Whether a text begins as JSON of many things does; no table's header line does."""
    return text.lstrip()[:1] in ("{", "[")


class Table:
    """A table with a header line, separated by commas, tabs or semicolons.

    Attributes:
        columns: The header.
    """

    def __init__(self, text: str, path: str | Path) -> None:
        header = text.split("\n", 1)[0]
        delimiter = max(",\t;", key=header.count)
        self.path = path
        self._reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        self.columns = [name for name in self._reader.fieldnames or [] if name]

    def require(self, columns: Iterable[str], what: str, remedy: str) -> None:
        """Raise if columns are missing.

        Raises:
            AnnotationError: With all that are.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise AnnotationError(
                f"The {what} {self.path} lacks the columns {', '.join(missing)}.", remedy=remedy
            )

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Each line, and where it stands, for messages."""
        for row in self._reader:
            yield f"{self.path}, line {self._reader.line_num}", row


def seconds(value: Any, where: str) -> float:
    """A finite number of seconds.

    Raises:
        AnnotationError: If it is none.
    """
    return _finite(value, where, "no time in seconds", "Correct it.")


def number(value: Any, where: str) -> float | None:
    """A finite number, or None where nothing stands.

    Raises:
        AnnotationError: If something else stands there.
    """
    if value is None or value == "":
        return None
    return _finite(value, where, "no finite number", "Correct it.")


def count(value: Any, where: str) -> int | None:
    """A number of frames, rounded, or None where nothing stands.

    Raises:
        AnnotationError: If something else stands there.
    """
    found = number(value, where)
    return None if found is None else round(found)


def parse_time(value: Any, where: str) -> float:
    """Seconds from ``12.5``, ``1:02.5`` or ``1:01:02.5``.

    Raises:
        AnnotationError: If it is none of these.
    """
    total = 0.0
    parts = str("" if value is None else value).strip().split(":")
    try:
        if len(parts) > 3:
            raise ValueError
        for part in parts:
            total = total * 60 + float(part)
    except ValueError:
        total = math.nan
    remedy = "Write seconds, such as 12.5, or 1:02.5."
    return _finite(total, where, "no time", remedy, said=value)


def _finite(value: Any, where: str, what: str, remedy: str, *, said: Any = None) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        shown = value if said is None else said
        raise AnnotationError(f"{where}: {shown!r} is {what}.", remedy=remedy)
    return found
