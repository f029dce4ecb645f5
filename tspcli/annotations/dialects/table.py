"""Tables of actions: official TSP's, G-TAD's, and any other of video, start, end and label.

CSV, TSV or semicolon-separated, with a header line. Times are seconds, ``minutes:seconds`` or
``hours:minutes:seconds``. Rows without a label (background in the official tables) are skipped and
counted. Columns of subsets, durations and frames are read where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Kind, Segment, same_subset
from tspcli.annotations.text_files import Place, Row, Source, Table, count, number, parse_time
from tspcli.core.regions import REGION_CLASSES
from tspcli.core.video_names import Spellings, without_suffix
from tspcli.errors import AnnotationError

KNOWN_COLUMNS: dict[str, tuple[str, ...]] = {
    "video": (
        *("video", "video-name", "video_name", "video_id", "video-id", "videoid"),
        *("filename", "file_name", "file", "vid", "name"),
    ),
    "start": (
        *("start", "t-start", "t_start", "start_s", "start_time", "start_timestamp", "start_sec"),
        *("begin", "begin_s", "begin_time", "t_begin", "from"),
    ),
    "end": (
        *("end", "t-end", "t_end", "end_s", "end_time", "stop_timestamp", "end_timestamp"),
        *("end_sec", "finish", "finish_s", "finish_time", "t_finish", "stop", "stop_time", "to"),
    ),
    "label": (
        *("label", "action-label", "action_label", "type", "class", "class_name", "classname"),
        *("action", "activity", "event", "category"),
    ),
}
"""Column names that are recognised, the most specific first."""

_DURATIONS = ("video-duration", "duration")
_FRAMES = ("startframe", "endframe")
_SUBSETS = ("subset", "split", "partition")
REGION_COLUMN = "temporal-region-label"
"""Official TSP's column of the region classes."""


def detects(source: Source) -> bool:
    """Whether all four columns are recognised, or the user named some."""
    if not source.is_table:
        return False
    columns = source.table().columns
    return bool(source.columns) or all(_first(KNOWN_COLUMNS[r], columns) for r in KNOWN_COLUMNS)


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: If a column is missing, a value is not a time, or a video is in two
            subsets.
    """
    return read_segments(source.table(), source.columns)


def read_segments(table: Table, given: Mapping[str, str], kind: Kind = "actions") -> Annotations:
    """The labelled segments of a table.

    Args:
        table: The table.
        given: Names of the columns ``video``, ``start``, ``end`` and ``label`` that are not among
            :data:`KNOWN_COLUMNS`.
        kind: What the labels are.

    Raises:
        AnnotationError: As :func:`read`.
    """
    chosen = choose_columns(table, given)
    subset, duration = _first(_SUBSETS, table.columns), _first(_DURATIONS, table.columns)
    frames = [c for c in (_first((name,), table.columns) for name in _FRAMES) if c]
    found = Annotations(path=Path(table.path), kind=kind)
    segments: dict[str, list[Segment]] = {}
    spellings = Spellings()
    # Background may be written as a row that ends before its label.
    needed = [column for role, column in chosen.items() if role != "label"]
    for place, row in table.rows():
        if (absent := next((c for c in needed if row[c] is None), None)) is not None:
            raise place.at(absent).error("the row ends before this column.")
        name = spellings.first(without_suffix((row[chosen["video"]] or "").strip()))
        if not name:
            raise place.at(chosen["video"]).error("the video has no name.")
        video = found.get(name, AnnotatedVideo())
        if subset and row[subset]:
            word = str(row[subset]).strip()
            if video.subset is not None and not same_subset(video.subset, word):
                raise place.at(subset).error(
                    f"{name!r} is in {word!r} here, but in {video.subset!r} above.",
                    video=name,
                    value=word,
                )
            video = replace(video, subset=word)
        if duration and video.duration_s is None:
            video = replace(video, duration_s=number(row[duration], place.at(duration)))
        found[name] = video
        label = (row[chosen["label"]] or "").strip()
        if REGION_COLUMN in row and chosen["label"] == "action-label":
            region_label(row, place)
        if not label:
            found.skipped["no label"] += 1
            continue
        start_s, end_s = (parse_time(row[c], place.at(c)) for c in needed[1:])
        in_frames = [count(row[column], place.at(column)) for column in frames]
        first, last = in_frames if len(in_frames) == 2 else (None, None)
        shown = None if first is None or last is None else (first, last)
        segments.setdefault(name, []).append(Segment(start_s, end_s, label, shown))
    if not found:
        raise Place(table.path).error("the table has no rows.")
    for name, own in segments.items():
        found[name] = replace(found[name], segments=tuple(own))
    return found


def choose_columns(table: Table, given: Mapping[str, str]) -> dict[str, str]:
    """The table's column for each of ``video``, ``start``, ``end`` and ``label``.

    Args:
        table: The table.
        given: See :func:`read_segments`.

    Raises:
        AnnotationError: If one is missing, or another kind of column is named.
    """
    unknown = sorted(set(given) - set(KNOWN_COLUMNS))
    if unknown:
        raise AnnotationError(
            f"{unknown[0]!r} is not a column role; use {', '.join(KNOWN_COLUMNS)}.",
            value=unknown[0],
        )
    return {role: _column(role, table, given) for role in KNOWN_COLUMNS}


def region_label(row: Row, place: Place) -> str | None:
    """The class name of an official table's row; None for background.

    Raises:
        AnnotationError: If the action label and the temporal region contradict each other.
    """
    label = (row.get("action-label") or "").strip() or None
    region = (row.get(REGION_COLUMN) or "").strip()
    if region and region not in REGION_CLASSES:
        raise place.at(REGION_COLUMN).error(
            f"{region!r} is neither {REGION_CLASSES[0]!r} nor {REGION_CLASSES[1]!r}.", value=region
        )
    if region and (region == REGION_CLASSES[0]) != (label is not None):
        raise place.at(REGION_COLUMN).error(
            f"the region is {region!r}, but the action label is {label!r}.", value=region
        )
    return label


def _column(role: str, table: Table, given: Mapping[str, str]) -> str:
    wanted = given.get(role)
    found = _first(KNOWN_COLUMNS[role], table.columns) if wanted is None else wanted
    if found is None or found not in table.columns:
        missing = f"recognised as the {role}" if found is None else f"named {found!r}"
        raise Place(table.path).error(
            f"no column is {missing}; the columns are "
            f"{', '.join(map(repr, table.columns)) or 'none'}.",
            remedy=f"Name it: --column {role}=NAME." if found is None else None,
            missing=role,
        )
    return found


def _first(names: tuple[str, ...], columns: list[str]) -> str | None:
    """The first of some names that a table has, as the table spells it."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)
