"""Which actions happen when: ActivityNet's JSON and the ground-truth tables of TSP."""

from __future__ import annotations

import csv
import gc
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tspcli.errors import AnnotationError
from tspcli.parsing import parse_json, refuses_damage

_TABLE_COLUMNS = ("video-name", "t-start", "t-end", "action-label", "video-duration")


class Segment(NamedTuple):
    """One action; times in seconds after the video's first frame."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class AnnotatedVideo:
    """The actions of one video.

    Attributes:
        segments: In the order of the file; may be empty.
        duration_s: As annotated, or None.
        subset: Such as ``validation``, or None.
    """

    segments: tuple[Segment, ...]
    duration_s: float | None = None
    subset: str | None = None


class Annotations(dict[str, AnnotatedVideo]):
    """Annotated videos by name, in the order of their file."""

    def labels(self) -> list[str]:
        """All class names, sorted."""
        return sorted({segment.label for video in self.values() for segment in video.segments})

    def subset(self, name: str | None) -> Annotations:
        """The videos of one subset; all if ``name`` is None.

        Raises:
            AnnotationError: If no video belongs to it.
        """
        if name is None:
            return self
        chosen = Annotations({key: video for key, video in self.items() if video.subset == name})
        if not chosen:
            known = sorted({str(video.subset) for video in self.values()})
            raise AnnotationError(
                f"No annotated video belongs to the subset {name!r}.",
                remedy=f"The subsets here are: {', '.join(known) or 'none'}.",
            )
        return chosen

    def find(self, key: str) -> str | None:
        """The name under which a store's ``key`` is annotated, or None.

        ActivityNet's video files are called ``v_ID`` and its annotations say ``ID``.
        """
        for name in (key, key.removeprefix("v_"), f"v_{key}"):
            if name in self:
                return name
        return None


def read_annotations(path: str | Path, subset: str | None = None) -> Annotations:
    """Read annotations: ``.csv`` as a ground-truth table of TSP, all else as ActivityNet's JSON.

    Args:
        path: The file.
        subset: Keep these videos alone. Tables hold one subset and know no name for it, so it is
            ignored for them.

    Raises:
        AnnotationError: If the file cannot be read or says something impossible, with the place.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return read_table(path)
    return read_activitynet_json(path).subset(subset)


@refuses_damage(AnnotationError, "Give ActivityNet's JSON.")
def read_activitynet_json(path: str | Path) -> Annotations:
    """Read ``{"database": {ID: {"subset", "duration", "annotations": [{"segment", "label"}]}}}``.

    Raises:
        AnnotationError: Naming the video and the value.
    """
    data = load_json(path, "annotations")
    database = data.get("database") if isinstance(data, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError(
            f"{path} has no 'database' of videos.",
            remedy="Expected ActivityNet's JSON: {'database': {'ID': {'annotations': …}}}.",
        )
    videos = Annotations()
    for name, entry in database.items():
        where = f"{path}, video {name!r}"
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: {entry!r} is no object.", remedy="Check the file.")
        duration = entry.get("duration")
        segments = [_json_segment(item, where) for item in entry.get("annotations") or ()]
        videos[name] = AnnotatedVideo(
            tuple(segments),
            None if duration is None else _seconds(duration, where),
            entry.get("subset"),
        )
    return videos


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_table(path: str | Path) -> Annotations:
    """Read a ground-truth table; rows without an action label are background and hold no action.

    Raises:
        AnnotationError: Naming the line and the value.
    """
    path = Path(path)
    try:
        stream = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"The annotations {path} cannot be read: {error}.", remedy="Check the path."
        ) from error
    reader = csv.DictReader(stream)
    missing = [name for name in _TABLE_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise AnnotationError(
            f"The ground-truth table {path} lacks the columns {', '.join(missing)}.",
            remedy="Give a table as `tsp annotations` writes it, or ActivityNet's JSON.",
        )
    videos = Annotations()
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        name = row["video-name"] or ""
        if not name:
            raise AnnotationError(f"{where}: video-name is empty.", remedy="Check the line.")
        video = videos.get(name)
        if video is None:
            video = AnnotatedVideo((), _seconds(row["video-duration"], where))
        label = (row["action-label"] or "").strip()
        if label:
            start, end = (_seconds(row[column], where) for column in ("t-start", "t-end"))
            video = replace(video, segments=(*video.segments, Segment(start, end, label)))
        videos[name] = video
    return videos


def write_activitynet_json(path: str | Path, videos: Annotations, *, version: str = "") -> None:
    """Write annotations in ActivityNet's format, as the official evaluation code reads it."""
    database = {
        name: {
            "duration": video.duration_s,
            "subset": video.subset,
            "annotations": [
                {"segment": [segment.start_s, segment.end_s], "label": segment.label}
                for segment in video.segments
            ],
        }
        for name, video in videos.items()
    }
    text = json.dumps({"database": database, "taxonomy": [], "version": version})
    Path(path).write_text(text + "\n", encoding="utf-8")


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
    try:
        with open(path, encoding="utf-8") as stream, collector_paused():
            return parse_json(stream.read())
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"The {what} {path} cannot be read as JSON: {error}.", remedy="Check the path."
        ) from error


def _json_segment(item: Any, where: str) -> Segment:
    try:
        (start, end), label = item["segment"], item["label"]
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{where}: {item!r} is no annotation.",
            remedy='Expected {"segment": [start, end], "label": name}, in seconds.',
        ) from error
    return Segment(_seconds(start, where), _seconds(end, where), str(label))


def _seconds(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(f"{where}: {value!r} is no time in seconds.", remedy="Correct it.")
    return number
