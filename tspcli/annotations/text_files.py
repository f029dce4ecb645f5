"""Opening the files that annotations come in, and reading the numbers in them.

Every error carries the place of the fault, as text and as data: ``path``, ``line`` or ``video``,
``field`` and ``value``.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.core.files import file_sha256
from tspcli.core.text import parse_json
from tspcli.core.video_names import Spellings
from tspcli.errors import AnnotationError

Row = dict[str, str | None]
"""A line of a table by column; None where the line is too short."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CLOCK_TIME = re.compile(r"(\d+:)?\d+:\d+(\.\d*)?", re.ASCII)
_MINUTE = 60
_LARGEST_BYTES = 64 << 20


class Place(NamedTuple):
    """Where in a source something stands.

    Attributes:
        path: The file.
        line: The line of a table or text, counted from 1.
        video: The video of a JSON file.
        field: The column or the JSON key.
    """

    path: str | Path
    line: int | None = None
    video: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        words = [str(self.path)]
        if self.line is not None:
            words.append(f"line {self.line}")
        if self.video is not None:
            words.append(f"video {self.video!r}")
        if self.field is not None:
            words.append(self.field)
        return ", ".join(words)

    def at(self, field: str) -> Place:
        """A column or JSON key of this line or video."""
        return self._replace(field=field)

    def error(self, message: str, *, remedy: str | None = None, **data: object) -> AnnotationError:
        """An error at this place, ready to be raised."""
        known = {name: value for name, value in self._asdict().items() if value is not None}
        return AnnotationError(f"{self}: {message}", remedy=remedy, **known, **data)


def source_sha256(path: Path) -> str:
    """The sha256 of a file of annotations, or of the names and contents of the files in a folder.

    Of files too large for annotations, such as videos beside them, the size counts.

    Raises:
        OSError: If it cannot be read.
    """
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file():
            size = file.stat().st_size
            content = file_sha256(file) if size <= _LARGEST_BYTES else str(size)
            digest.update(f"{file.name!r} {content}\n".encode())
    return digest.hexdigest()


class Source:
    """A file or folder of annotations, opened and parsed once for all dialects.

    Attributes:
        path: The file or folder.
        columns: The user's names for the columns ``video``, ``start``, ``end`` and ``label``.
    """

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.columns = dict(columns or {})

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    def files(self, *suffixes: str) -> list[Path]:
        """The files of some suffixes in a folder, or the file itself whatever its suffix."""
        if not self.is_folder:
            return [self.path]
        return [path for path in sorted(self.path.iterdir()) if path.suffix.lower() in suffixes]

    @cached_property
    def text(self) -> str:
        """The file's text.

        Raises:
            AnnotationError: If it cannot be read.
        """
        return read_text(self.path, "annotation file")

    @property
    def is_json(self) -> bool:
        """Whether it is a file that begins as JSON does; no table's header line does."""
        return not self.is_folder and self.text.lstrip()[:1] in ("{", "[")

    @property
    def is_table(self) -> bool:
        """Whether it is a file of another kind of text."""
        return not self.is_folder and not self.is_json

    @cached_property
    def json(self) -> dict[str, Any]:
        """The JSON object of a file.

        Raises:
            AnnotationError: If the file is not JSON, or not an object.
        """
        value = _json_value(self.text, self.path, "annotation file")
        if not isinstance(value, dict):
            raise Place(self.path).error("the JSON is not an object of videos.")
        return value

    @property
    def first_video(self) -> dict[str, Any]:
        """The first value of the JSON object if that is an object, else an empty one."""
        first = next(iter(self.json.values()), None)
        return first if isinstance(first, dict) else {}

    def table(self) -> Table:
        """The file as a table.

        Raises:
            AnnotationError: If it is JSON, or has no usable header.
        """
        if not self.is_table:
            what = "JSON" if self.is_json else "a folder"
            raise Place(self.path).error(f"this is {what}, not a table.")
        return Table(self.text, self.path)


class Table:
    """A table with a header line, separated by commas, tabs or semicolons.

    Attributes:
        path: The file.
        columns: The header.
        delimiter: What separates its fields.

    Raises:
        AnnotationError: If the header names a column twice.
    """

    def __init__(self, text: str, path: str | Path) -> None:
        header = text.split("\n", 1)[0]
        self.path = path
        self.delimiter = max(",\t;", key=header.count)
        self._reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=self.delimiter)
        self.columns = [name for name in self._reader.fieldnames or [] if name]
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise Place(path, line=1).error(f"the column {twice[0]!r} appears twice.")

    def require(self, columns: Iterable[str], what: str, remedy: str) -> None:
        """Raise if columns are missing.

        Raises:
            AnnotationError: With all that are.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise AnnotationError(
                f"The {what} {self.path} lacks the columns {', '.join(missing)}.",
                remedy=remedy,
                path=self.path,
                missing=missing,
            )

    def rows(self) -> Iterator[tuple[Place, Row]]:
        """Each line with its place.

        Raises:
            AnnotationError: If a line has more fields than the header.
        """
        for row in self._reader:
            place = Place(self.path, line=self._reader.line_num)
            surplus: list[str] = row.pop(None, [])  # type: ignore[arg-type, assignment]
            if any(surplus):
                raise place.error(
                    f"the line has {len(row) + len(surplus)} fields, the header {len(row)}; the "
                    f"first too many is {surplus[0]!r}.",
                    remedy="Quote fields that hold the separator.",
                    value=surplus[0],
                )
            yield place, row


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8.

    Raises:
        AnnotationError: If there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"There is no {what} {path}.", path=path) from None
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"The {what} {path} is not UTF-8 text: {error}.", remedy="Save it as UTF-8.", path=path
        ) from error
    except OSError as error:
        raise AnnotationError(
            f"The {what} {path} cannot be read: {error.strerror or error}.", path=path
        ) from error


def load_json(path: str | Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        AnnotationError: If there is no such file or it is not JSON.
    """
    return _json_value(read_text(path, what), path, what)


def _json_value(text: str, path: str | Path, what: str) -> Any:
    try:
        with collector_paused():
            return parse_json(text)
    except ValueError as error:
        raise AnnotationError(
            f"The {what} {path} cannot be read as JSON: {error}.", path=path
        ) from error


def require_one_form(names: Iterable[str], path: str | Path) -> None:
    """Raise if two keys of a JSON object are one video's name, as if one key stood there twice.

    Args:
        names: The names of the videos.
        path: The file.

    Raises:
        AnnotationError: If two differ only in their Unicode form, with both.
    """
    spellings = Spellings()
    for name in names:
        first = spellings.first(name)
        if first != name:
            raise Place(path, video=name).error(
                f"{first!a} and {name!a} are one video in two Unicode forms.",
                remedy="Merge their entries.",
                value=first,
            )


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from searching millions of new objects for cycles.

    Large JSON files are read in a third of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def seconds(value: Any, place: Place) -> float:
    """A finite number of seconds.

    Raises:
        AnnotationError: If it is anything else.
    """
    return _finite(value, place, "a time in seconds")


def number(value: Any, place: Place) -> float | None:
    """A finite number, or None for an empty value.

    Raises:
        AnnotationError: If it is anything else.
    """
    if value is None or value == "":
        return None
    return _finite(value, place, "a finite number")


def count(value: Any, place: Place) -> int | None:
    """A number of frames, rounded, or None for an empty value.

    Raises:
        AnnotationError: If it is anything else.
    """
    found = number(value, place)
    return None if found is None else round(found)


def label(value: Any, place: Place, what: str = "label") -> str:
    """A class name or a caption; whole numbers, which some data sets have for classes, too.

    Raises:
        AnnotationError: If it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise place.error(f"{value!r} is not a {what}.", value=value)
    return value


def parse_time(value: Any, place: Place) -> float:
    """Seconds from ``12.5``, ``1:02.5`` or ``1:01:02.5``.

    Raises:
        AnnotationError: If it is anything else.
    """
    text = str("" if value is None else value).strip()
    if ":" not in text:
        return _finite(text, place, "a time such as 12.5 or 1:02.5")
    first, *others = text.split(":")
    if not _CLOCK_TIME.fullmatch(text) or any(float(part) >= _MINUTE for part in others):
        raise place.error(f"{value!r} is not a time such as 12.5 or 1:02.5.", value=value)
    # In decimals, so that 1:10.448 is the float that 70.448 is.
    total = Decimal(first)
    for part in others:
        total = total * _MINUTE + Decimal(part)
    return float(total)


def _finite(value: Any, place: Place, what: str) -> float:
    """A number as JSON and people write it; Python's parser also takes ``1_000`` and ``True``."""
    found = math.nan
    if isinstance(value, str):
        if _NUMBER.fullmatch(value.strip()):
            found = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
    if not math.isfinite(found):
        raise place.error(f"{value!r} is not {what}.", value=value)
    return found
