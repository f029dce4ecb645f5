"""Changing a file of annotations in place: what an edit does not concern stays as it was.

ActivityNet's JSON and tables of actions can be edited. Unknown fields and columns, the order of
entries and, in tables, the untouched lines themselves survive; the version before a save is kept
beside the file as ``NAME.bak``; a file that somebody else has changed is never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.annotations.dialects import table as table_dialect
from tspcli.annotations.read import read_annotations
from tspcli.annotations.text_files import Place, Source, require_one_form
from tspcli.core.files import duplicate, explain_write_errors, replacing
from tspcli.errors import AnnotationError, UsageError

DECIMALS = 3
"""Of seconds that an edit writes; times that it does not change keep the digits they have."""


class EditedSegment(NamedTuple):
    """A segment as an editor knows it.

    Attributes:
        start_s: Start in seconds after the first frame.
        end_s: End.
        label: The action.
        entry: Which of its video's entries in the file it is, from 0; None if it is new.
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
            # Odd segments that the file holds already are not the editor's.
            for segment in set(segments) - set(self.segments.get(video, ())):
                _require_sound(self.path, video, segment)
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise AnnotationError(f"{self.path} is not writable.", path=self.path)
        data = self.text_with(changes).encode("utf-8")
        current = self.reopened()
        if current.version != self.version:
            raise ChangedMeanwhileError(current)
        with replacing(self.path, error=AnnotationError) as aside:
            aside.write_bytes(data)
            _require_equal(aside, self.columns, self.segments | dict(changes))
            if self.path.exists():
                backup = self.path.with_name(f"{self.path.name}.bak")
                with explain_write_errors(backup, error=AnnotationError):
                    duplicate(self.path, backup)
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
    from tspcli.annotations.edited_table import TableFile  # which is made of what is here

    # The file itself where a link leads to it, so that the link stays one.
    path, columns = Path(path).resolve(), dict(columns or {})
    if not path.exists():
        if path.suffix.lower() == ".json":
            return _JsonFile(path, b"", columns)
        return TableFile(path, b"", columns)
    source = Source(path, columns)
    if source.is_json and columns:
        raise UsageError(f"{path} is JSON, which has no columns.", option="--column")
    if source.is_json and isinstance(source.json.get("database"), dict):
        read_annotations(path, "activitynet")  # names what is wrong in it
        return _JsonFile(path, path.read_bytes(), columns)
    if source.is_table and table_dialect.detects(source):
        return TableFile(path, path.read_bytes(), columns)
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
        before if before is not None and float(before) == now else rounded(now)
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


_NEW_JSON = '{\n "version": "1.0",\n "database": {}\n}\n'


def rounded(seconds: float) -> float:
    """Seconds as an edit writes them."""
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
    meant = {(v, rounded(s.start_s), rounded(s.end_s), s.label) for v in wanted for s in wanted[v]}
    if not meant:
        return
    said = {
        (name, rounded(s.start_s), rounded(s.end_s), s.label)
        for name, video in read_annotations(path, columns=columns).items()
        for s in video.segments
    }
    if meant != said:
        raise AnnotationError(
            f"Nothing was saved, because the edited segments would not read back the same: "
            f"{sorted(meant ^ said)[0]}.",
            path=path,
        )
