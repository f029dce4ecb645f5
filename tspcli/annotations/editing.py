"""Changing a file of annotations in place: what an edit does not concern stays as it was.

ActivityNet's JSON and tables of actions can be edited. Unknown fields and columns, the order of
entries and, in tables, the untouched lines themselves survive; the version before a save is kept
beside the file as ``NAME.bak``; a file that somebody else has changed is never overwritten.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.annotations.dialects import table as table_dialect
from tspcli.annotations.read import read_annotations
from tspcli.annotations.text_files import Place, Source, Table, parse_time, require_one_form
from tspcli.core.files import duplicate, replacing
from tspcli.core.regions import REGION_CLASSES
from tspcli.core.video_names import Spellings, without_suffix
from tspcli.errors import AnnotationError, UsageError

DECIMALS = 3
"""Of seconds that an edit writes; times that it does not change keep the digits they have."""


class EditedSegment(NamedTuple):
    """A segment as an editor knows it.

    Attributes:
        start_s: Start in seconds after the first frame.
        end_s: End.
        label: The action.
        entry: Which entry of the file it is, by its position there; None if it is new.
    """

    start_s: float
    end_s: float
    label: str
    entry: int | None = None


class ChangedMeanwhileError(AnnotationError):
    """The file is not the one that was read.

    Attributes:
        current: The file as it is now.
    """

    def __init__(self, current: EditableAnnotations) -> None:
        super().__init__(
            f"{current.path} was changed by another program after it was opened, so it was not "
            "overwritten.",
            path=current.path,
        )
        self.current = current


class EditableAnnotations(ABC):
    """A file of annotations at one moment.

    Attributes:
        path: The file.
        columns: Names of columns by role, for tables in which they are not recognised.
        version: sha256 of its bytes; of none for a file that is still to be written.
        segments: Its segments by video, in the file's order.
    """

    def __init__(self, path: Path, data: bytes, columns: Mapping[str, str]) -> None:
        self.path = path
        self.columns = columns
        self.version = hashlib.sha256(data).hexdigest()
        self.segments: dict[str, list[EditedSegment]] = {}

    @abstractmethod
    def text_with(self, changes: Mapping[str, Sequence[EditedSegment]]) -> str:
        """The file's text with the segments of some videos replaced."""

    def reopened(self) -> EditableAnnotations:
        """The file as it is now.

        Raises:
            AnnotationError: As :func:`open_for_editing`.
        """
        return open_for_editing(self.path, self.columns)

    def save(self, changes: Mapping[str, Sequence[EditedSegment]]) -> EditableAnnotations:
        """Write the file with the segments of some videos replaced, completely or not at all.

        Args:
            changes: All segments of each changed video.

        Returns:
            The file as it is then.

        Raises:
            ChangedMeanwhileError: If the file is not the one that was read.
            AnnotationError: If a segment is none, or the file cannot be written.
        """
        for video, segments in changes.items():
            for segment in segments:
                _require_sound(self.path, video, segment)
        data = self.text_with(changes).encode("utf-8")
        current = self.reopened()
        if current.version != self.version:
            raise ChangedMeanwhileError(current)
        if self.path.exists():
            with replacing(self.path.with_name(f"{self.path.name}.bak")) as aside:
                duplicate(self.path, aside)
        with replacing(self.path, error=AnnotationError) as aside:
            aside.write_bytes(data)
            _require_equal(aside, self.columns, self.segments | dict(changes))
        return self.reopened()


def open_for_editing(
    path: str | Path, columns: Mapping[str, str] | None = None
) -> EditableAnnotations:
    """Open a file of annotations, or begin one: JSON by the ending ``.json``, else a table.

    Args:
        path: The file.
        columns: For tables: names of the columns ``video``, ``start``, ``end`` and ``label`` where
            they are not recognised; a new table gets them.

    Raises:
        AnnotationError: If it cannot be read, or is in a dialect that cannot be edited.
        UsageError: If columns are named for another dialect.
    """
    path, columns = Path(path), dict(columns or {})
    if not path.exists():
        if path.suffix.lower() == ".json":
            return _JsonFile(path, b"", columns)
        return _TableFile(path, b"", columns)
    source = Source(path, columns)
    if source.is_json and columns:
        raise UsageError(f"{path} is JSON, which has no columns.", option="--column")
    if source.is_json and isinstance(source.json.get("database"), dict):
        return _JsonFile(path, path.read_bytes(), columns)
    if source.is_table and table_dialect.detects(source):
        return _TableFile(path, path.read_bytes(), columns)
    raise AnnotationError(
        f"{path} is neither ActivityNet's JSON nor a table of actions, so it cannot be edited in "
        "place.",
        remedy=f"Convert it: tsp annotations convert {path} --to table --out edited.csv",
        path=path,
    )


class _JsonFile(EditableAnnotations):
    """``{"database": {ID: {"annotations": [{"segment": [start, end], "label": name}]}}}``."""

    def __init__(self, path: Path, data: bytes, columns: Mapping[str, str]) -> None:
        super().__init__(path, data, columns)
        self._text = data.decode("utf-8-sig")
        if not data:
            self._text = _NEW_JSON
        self._content: dict[str, Any] = json.loads(self._text)
        require_one_form(self._content["database"], path)
        for video, entry in self._content["database"].items():
            self.segments[video] = [
                EditedSegment(float(a["segment"][0]), float(a["segment"][1]), str(a["label"]), i)
                for i, a in enumerate(entry.get("annotations") or ())
            ]

    def text_with(self, changes: Mapping[str, Sequence[EditedSegment]]) -> str:
        content = json.loads(self._text)
        database = content["database"]
        numbers = _label_numbers(database)
        for video, segments in changes.items():
            entry = database.setdefault(video, self._new_video(database))
            old = entry.get("annotations") or []
            entry["annotations"] = [
                _json_entry(None if s.entry is None else old[s.entry], s, numbers) for s in segments
            ]
        return _like(self._text, content)

    def _new_video(self, database: Mapping[str, Any]) -> dict[str, Any]:
        subsets = {entry.get("subset") for entry in database.values()}
        return {"subset": subsets.pop()} if len(subsets) == 1 else {}


def _json_entry(
    old: dict[str, Any] | None, segment: EditedSegment, numbers: Mapping[str, Any]
) -> dict[str, Any]:
    new = dict(old or {"segment": [None, None], "label": None})
    times = [
        before if before is not None and float(before) == now else _rounded(now)
        for before, now in zip(new["segment"], segment[:2], strict=True)
    ]
    relabelled = str(new["label"]) != segment.label
    new["segment"] = times
    if relabelled:
        new["label"] = segment.label
        new.pop("label_id", None)
        if segment.label in numbers:
            new["label_id"] = numbers[segment.label]
    return new


def _label_numbers(database: Mapping[str, Any]) -> dict[str, Any]:
    """The ``label_id`` of each label, in files that have them."""
    return {
        str(item["label"]): item["label_id"]
        for entry in database.values()
        for item in entry.get("annotations") or ()
        if "label_id" in item
    }


def _like(text: str, content: Any) -> str:
    """JSON laid out as a text is: its indentation, its letters beyond ASCII, its last line end."""
    second = text.split("\n", 2)[1] if "\n" in text.strip() else ""
    indent = second[: len(second) - len(second.lstrip())] or None
    tight = indent is None and '": ' not in text
    written = json.dumps(
        content,
        indent=indent,
        ensure_ascii=text.isascii(),
        separators=(",", ":") if tight else None,
    )
    return written + ("\n" if text.endswith("\n") else "")


class _Record(NamedTuple):
    """A line of a table, or several where a field holds line ends.

    Attributes:
        raw: As it stands in the file, without its line end.
        fields: Its fields by column.
        place: Where it stands.
    """

    raw: str
    fields: dict[str, str]
    place: Place


class _TableFile(EditableAnnotations):
    """A table of video, start, end and label."""

    def __init__(self, path: Path, data: bytes, columns: Mapping[str, str]) -> None:
        super().__init__(path, data, columns)
        text = data.decode("utf-8-sig") or _header(columns)
        table = Table(text, path)
        self._bom = "\ufeff" if data.startswith(codecs.BOM_UTF8) else ""
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._delimiter = table.delimiter
        self._columns = table_dialect.choose_columns(table, columns)
        records = list(_records(text, self._delimiter))
        self._spellings = Spellings()
        self._header = records[0][0]
        self._names = records[0][1]
        self._records = [
            _Record(raw, dict(zip(self._names, fields, strict=False)), Place(path, line=line))
            for raw, fields, line in records[1:]
        ]
        for number, record in enumerate(self._records):
            if video := self._video(record):
                own = self.segments.setdefault(video, [])
                if record.fields.get(self._columns["label"], "").strip():
                    own.append(self._segment(number))

    def text_with(self, changes: Mapping[str, Sequence[EditedSegment]]) -> str:
        kept = {s.entry: s for segments in changes.values() for s in segments}
        added = {v: [s for s in segments if s.entry is None] for v, segments in changes.items()}
        last = {self._video(record): number for number, record in enumerate(self._records)}
        lines = [self._header]
        for number, record in enumerate(self._records):
            video = self._video(record)
            is_action = bool(record.fields.get(self._columns["label"], "").strip())
            if video not in changes or not is_action:
                lines.append(record.raw)
            elif number in kept:
                lines.append(self._changed(record, self._segment(number), kept[number]))
            if last[video] == number:
                lines += [self._new(video, segment) for segment in added.pop(video, ())]
        lines += [self._new(video, s) for video, segments in added.items() for s in segments]
        return self._bom + "".join(line + self._end for line in lines)

    def _video(self, record: _Record) -> str:
        name = without_suffix(record.fields.get(self._columns["video"], "").strip())
        return self._spellings.first(name)

    def _segment(self, number: int) -> EditedSegment:
        record = self._records[number]
        start_s, end_s = (
            parse_time(record.fields.get(self._columns[role], ""), record.place.at(role))
            for role in ("start", "end")
        )
        return EditedSegment(start_s, end_s, record.fields[self._columns["label"]].strip(), number)

    def _changed(self, record: _Record, old: EditedSegment, new: EditedSegment) -> str:
        if old == new:
            return record.raw
        fields = dict(record.fields)
        for role, was, now in zip(("start", "end"), old[:2], new[:2], strict=True):
            if was != now:
                column = self._columns[role]
                fields[column] = _time_like(fields[column], now)
                for name in self._named(f"{role}frame"):
                    fields[name] = _frame_at(now, fields[name], was)
        if old.label != new.label:
            fields |= self._label_fields(new.label)
        return self._line(fields)

    def _new(self, video: str, segment: EditedSegment) -> str:
        """A line for a new segment: what all lines of its video share, and its own."""
        own = [record.fields for record in self._records if self._video(record) == video]
        taken = {self._columns[role] for role in ("start", "end", "label")}
        fields = {
            name: own[0].get(name, "")
            for name in self._names
            if own and name not in taken and len({other.get(name) for other in own}) == 1
        }
        fields.setdefault(self._columns["video"], video)
        for role, time in zip(("start", "end"), segment[:2], strict=True):
            fields[self._columns[role]] = _time_like(
                own[0].get(self._columns[role], "") if own else "", time
            )
            for name in self._named(f"{role}frame"):
                fields[name] = ""
        return self._line(fields | self._label_fields(segment.label))

    def _label_fields(self, label: str) -> dict[str, str]:
        """The label's column and those that follow from it: its number, its region."""
        fields = {self._columns["label"]: label}
        for name in self._named(*_NUMBER_COLUMNS):
            same = (r.fields for r in self._records if self._label(r) == label)
            fields[name] = next((other.get(name, "") for other in same), "")
        for name in self._named(table_dialect.REGION_COLUMN):
            fields[name] = REGION_CLASSES[0]
        return fields

    def _label(self, record: _Record) -> str:
        return record.fields.get(self._columns["label"], "").strip()

    def _named(self, *wanted: str) -> list[str]:
        return [name for name in self._names if name.strip().lower() in wanted]

    def _line(self, fields: Mapping[str, str]) -> str:
        return _joined([fields.get(name, "") for name in self._names], self._delimiter)


_NEW_JSON = '{\n "version": "1.0",\n "database": {}\n}\n'
_NUMBER_COLUMNS = ("type_idx", "label_id", "class_id")
"""Columns that number the labels."""


def _header(columns: Mapping[str, str]) -> str:
    """The only line of a new table."""
    return _joined([columns.get(r, r) for r in table_dialect.KNOWN_COLUMNS], ",") + "\n"


def _joined(fields: Sequence[str], delimiter: str) -> str:
    line = io.StringIO()
    # With no line end of its own the writer would not quote fields that hold one.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(fields)
    return line.getvalue().removesuffix("\r\n")


def _records(text: str, delimiter: str) -> Iterator[tuple[str, list[str], int]]:
    """Each record of a table: its raw text without the line end, its fields, its first line."""
    lines = text.splitlines(keepends=True)
    read = 0

    def counted_lines() -> Iterator[str]:
        nonlocal read
        for line in lines:
            read += 1
            yield line

    reader = csv.reader(counted_lines(), delimiter=delimiter)
    first = 0
    for fields in reader:
        yield "".join(lines[first:read]).rstrip("\r\n"), fields, first + 1
        first = read


def _time_like(text: str, seconds: float) -> str:
    """Seconds written as a text is: with colons where it has some."""
    n_colons = text.count(":")
    rounded = _rounded(seconds)
    if not n_colons:
        return f"{rounded:.{DECIMALS}f}".rstrip("0").rstrip(".")
    minutes, rest = divmod(rounded, 60)
    shown = f"{rest:0{3 + DECIMALS}.{DECIMALS}f}".rstrip("0").rstrip(".")
    if n_colons == 1:
        return f"{int(minutes)}:{shown}"
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{shown}"


def _frame_at(now_s: float, frame: str, was_s: float) -> str:
    """A frame number moved with its time, at the rate that the two had; empty without one."""
    try:
        return str(int(now_s * float(frame) / was_s + 1e-6))
    except (ValueError, ZeroDivisionError):
        return ""


def _rounded(seconds: float) -> float:
    return round(seconds, DECIMALS)


def _require_sound(path: Path, video: str, segment: EditedSegment) -> None:
    place = Place(path, video=video)
    if not (math.isfinite(segment.start_s) and math.isfinite(segment.end_s)):
        raise place.error(f"{segment[:2]!r} are not times.", value=segment[:2])
    if not 0 <= segment.start_s < segment.end_s:
        raise place.error(
            f"{segment.label!r} at {segment.start_s:g}-{segment.end_s:g} s does not end after it "
            "starts, or starts before the video.",
            value=segment[:2],
        )
    if not segment.label.strip() or "\n" in segment.label or "\r" in segment.label:
        raise place.error(f"{segment.label!r} is not a label.", value=segment.label)


def _require_equal(
    path: Path, columns: Mapping[str, str], wanted: Mapping[str, Sequence[EditedSegment]]
) -> None:
    """Refuse to keep a file that does not say what it was meant to say."""
    meant = {
        (v, _rounded(s.start_s), _rounded(s.end_s), s.label) for v in wanted for s in wanted[v]
    }
    if not meant:
        return
    said = {
        (name, _rounded(s.start_s), _rounded(s.end_s), s.label)
        for name, video in read_annotations(path, columns=columns).items()
        for s in video.segments
    }
    if meant != said:
        raise AnnotationError(
            f"The edited segments would be read back differently, so nothing was saved: "
            f"{sorted(meant ^ said)[0]}.",
            path=path,
        )
