"""A table of actions that is edited: untouched lines stay as they are."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tspcli.annotations.dialects import table as table_dialect
from tspcli.annotations.editing import DECIMALS, EditableAnnotations, EditedSegment, rounded
from tspcli.annotations.text_files import Place, Table, parse_time
from tspcli.core.regions import REGION_CLASSES
from tspcli.core.video_names import Spellings, without_suffix


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


class TableFile(EditableAnnotations):
    """A table of video, start, end and label; see the base class."""

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
        for record in self._records:
            if video := self._video(record):
                own = self.segments.setdefault(video, [])
                if record.fields.get(self._columns["label"], "").strip():
                    own.append(self._segment(record, len(own)))

    def text_with(self, changes: Mapping[str, Sequence[EditedSegment]]) -> str:
        """The table's text with the segments of some videos replaced."""
        kept = {(v, s.entry): s for v, segments in changes.items() for s in segments}
        added = {v: [s for s in segments if s.entry is None] for v, segments in changes.items()}
        last = {self._video(record): number for number, record in enumerate(self._records)}
        lines = [self._header]
        seen: Counter[str] = Counter()
        for number, record in enumerate(self._records):
            video = self._video(record)
            is_action = bool(record.fields.get(self._columns["label"], "").strip())
            if video not in changes or not is_action:
                lines.append(record.raw)
            else:
                entry = seen[video]
                seen[video] += 1
                if (video, entry) in kept:
                    old = self._segment(record, entry)
                    lines.append(self._changed(record, old, kept[video, entry]))
            if last[video] == number:
                lines += [self._new(video, segment) for segment in added.pop(video, ())]
        lines += [self._new(video, s) for video, segments in added.items() for s in segments]
        return self._bom + "".join(line + self._end for line in lines)

    def _video(self, record: _Record) -> str:
        name = without_suffix(record.fields.get(self._columns["video"], "").strip())
        return self._spellings.first(name)

    def _segment(self, record: _Record, entry: int) -> EditedSegment:
        start_s, end_s = (
            parse_time(record.fields.get(self._columns[role], ""), record.place.at(role))
            for role in ("start", "end")
        )
        return EditedSegment(start_s, end_s, record.fields[self._columns["label"]].strip(), entry)

    def _changed(self, record: _Record, old: EditedSegment, new: EditedSegment) -> str:
        if old == new:
            return record.raw
        fields = dict(record.fields)
        rate = self._frame_rate(record, old)
        for role, was, now in zip(("start", "end"), old[:2], new[:2], strict=True):
            if was != now:
                column = self._columns[role]
                fields[column] = _time_like(fields[column], now)
                for name in self._named(f"{role}frame"):
                    fields[name] = "" if rate is None else str(int(now * rate + 1e-6))
        if old.label != new.label:
            fields |= self._label_fields(new.label)
        return self._line(fields)

    def _frame_rate(self, record: _Record, segment: EditedSegment) -> float | None:
        """Frames per second by the frames and times of a line; None where it has none."""
        for role, time_s in (("end", segment.end_s), ("start", segment.start_s)):
            for name in self._named(f"{role}frame"):
                frame = record.fields.get(name, "").strip()
                if frame.isdigit() and time_s > 0:
                    return int(frame) / time_s
        return None

    def _new(self, video: str, segment: EditedSegment) -> str:
        """A line for a new segment: what is the video's, as in its other lines, and its own."""
        own = [record.fields for record in self._records if self._video(record) == video]
        fields = {name: own[0].get(name, "") for name in self._video_columns} if own else {}
        fields.setdefault(self._columns["video"], video)
        for role, time in zip(("start", "end"), segment[:2], strict=True):
            fields[self._columns[role]] = _time_like(
                own[0].get(self._columns[role], "") if own else "", time
            )
            for name in self._named(f"{role}frame"):
                fields[name] = ""
        return self._line(fields | self._label_fields(segment.label))

    @cached_property
    def _video_columns(self) -> list[str]:
        """The columns that say something of a video: those that no video has two values in.

        In a table with one line per video nothing shows which those are but their names.
        """
        values: dict[str, dict[str, set[str]]] = {}
        for record in self._records:
            own = values.setdefault(self._video(record), {})
            for name in self._names:
                own.setdefault(name, set()).add(record.fields.get(name, ""))
        n_lines = Counter(map(self._video, self._records))
        several = [own for video, own in values.items() if n_lines[video] > 1]
        its_own = {self._columns[role] for role in ("start", "end", "label")}
        return [
            name
            for name in self._names
            if name not in its_own
            and (
                name == self._columns["video"]
                or name.strip().lower() in _VIDEO_COLUMNS
                or (several and all(len(own[name]) == 1 for own in several))
            )
        ]

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


_VIDEO_COLUMNS = (
    "subset",
    "split",
    "video-duration",
    "duration",
    "fps",
    "video-frames",
    "filename",
)
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
    lines = list(io.StringIO(text, newline=""))  # splitlines would also split at U+2028
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
    time = rounded(seconds)
    if not n_colons:
        return f"{time:.{DECIMALS}f}".rstrip("0").rstrip(".")
    minutes, rest = divmod(time, 60)
    shown = f"{rest:0{3 + DECIMALS}.{DECIMALS}f}".rstrip("0").rstrip(".")
    if n_colons == 1:
        return f"{int(minutes)}:{shown}"
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{shown}"
