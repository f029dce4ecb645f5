"""Tables: official ones, those of G-TAD, BSN and BMT, and any of video, start, end and label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Kind, Segment, same_subset
from tspcli.annotations.text_files import (
    Row,
    Table,
    count,
    looks_like_json,
    number,
    parse_time,
    read_text,
)
from tspcli.core.text import refuses_damage
from tspcli.core.video_names import without_suffix
from tspcli.errors import AnnotationError

KNOWN_COLUMNS: dict[str, tuple[str, ...]] = {
    "video": ("video", "video-name", "video_name", "video_id", "filename", "file", "name"),
    "start": ("start", "t-start", "t_start", "start_s", "start_time", "begin", "from"),
    "end": ("end", "t-end", "t_end", "end_s", "end_time", "stop", "to"),
    "label": ("label", "action-label", "action_label", "type", "class", "action", "category"),
}
"""Column names that are recognised without being told, most telling first."""

_DURATIONS = ("video-duration", "duration")
_FRAMES = ("startframe", "endframe")
_SUBSETS = ("subset", "split")
_REGION = "temporal-region-label"

REGION_LABELS = ("Action", "No action")
"""Names of the temporal region classes; a name's index is its id."""


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_table(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Annotations:
    """Read a CSV, TSV or semicolon-separated table of actions with a header line.

    Args:
        path: The table. Times are seconds, or ``minutes:seconds``, or ``hours:minutes:seconds``.
        columns: Names of the columns ``video``, ``start``, ``end`` and ``label`` where they are
            none of :data:`KNOWN_COLUMNS`.

    Returns:
        Annotations; rows without a label (background in the official tables) are skipped and
        counted. Columns of subsets, durations and frames are kept, if there are any.

    Raises:
        AnnotationError: If a column is missing, a value is no time, or a video is in two subsets,
            naming the line.
    """
    unknown = sorted(set(columns or {}) - set(KNOWN_COLUMNS))
    if unknown:
        raise AnnotationError(
            f"There is no column for {unknown[0]!r}.", remedy=f"Name {', '.join(KNOWN_COLUMNS)}."
        )
    text = read_text(path, "table")
    if looks_like_json(text):
        raise AnnotationError(
            f"{path} is JSON, no table.", remedy="`tsp annotations activitynet` reads JSON."
        )
    return _segments(Table(text, path), columns or {})


def parse_table(text: str, path: str | Path) -> Annotations | None:
    """The annotations of a table of any dialect; None if it is in none.

    Raises:
        AnnotationError: If a value does not fit, naming the line.
    """
    table = Table(text, path)
    if {"video_id", "caption", "start", "end"} <= set(table.columns):
        return _segments(table, {"label": "caption"}, dialect="bmt", kind="captions")
    if all(_recognised(role, table.columns) for role in KNOWN_COLUMNS):
        return _segments(table, {})
    for columns, read in ((_METADATA, _metadata), (_VIDEO_INFO, _video_info)):
        if columns <= set(table.columns):
            return read(table)
    return None


def region_label(row: Row, where: str) -> str | None:
    """A row's class name; None for background.

    Raises:
        AnnotationError: If its action label and its temporal region contradict each other.
    """
    label = (row.get("action-label") or "").strip() or None
    region = (row.get(_REGION) or "").strip()
    if region and region not in REGION_LABELS:
        raise AnnotationError(
            f"{where}: {_REGION} is {region!r}.",
            remedy=f"It is {' or '.join(map(repr, REGION_LABELS))}.",
        )
    if region and (region == REGION_LABELS[0]) != (label is not None):
        raise AnnotationError(
            f"{where}: the region is {region!r}, but the action label is {label!r}.",
            remedy="An action has a label; background has none.",
        )
    return label


def _segments(
    table: Table, given: Mapping[str, str], dialect: str = "table", kind: Kind = "actions"
) -> Annotations:
    chosen = {role: _column(role, table, given) for role in KNOWN_COLUMNS}
    spelled = {name.strip().lower(): name for name in reversed(table.columns)}
    subset = next((spelled[name] for name in _SUBSETS if name in spelled), None)
    duration = next((spelled[name] for name in _DURATIONS if name in spelled), None)
    frames = [spelled[name] for name in _FRAMES if name in spelled]
    found = Annotations(path=Path(table.path), dialect=dialect, kind=kind)
    segments: dict[str, list[Segment]] = {}
    # Background may be written as a row that ends before its label.
    needed = [column for role, column in chosen.items() if role != "label"]
    for where, row in table.rows():
        if (absent := next((c for c in needed if row[c] is None), None)) is not None:
            raise AnnotationError(
                f"{where}: the row ends before the column {absent!r}.", remedy="Complete it."
            )
        name = without_suffix((row[chosen["video"]] or "").strip())
        if not name:
            raise AnnotationError(
                f"{where}: no video name.", remedy=f"Fill the column {chosen['video']!r}."
            )
        video = found.get(name, AnnotatedVideo())
        if subset and row[subset]:
            told = str(row[subset]).strip()
            if video.subset is not None and not same_subset(video.subset, told):
                raise AnnotationError(
                    f"{where}: {name!r} is in {told!r} here, and in {video.subset!r} above.",
                    remedy="A video is in one subset.",
                )
            video = replace(video, subset=told)
        if duration and video.duration_s is None:
            video = replace(video, duration_s=number(row[duration], f"{where}, {duration}"))
        found[name] = video
        label = (row[chosen["label"]] or "").strip()
        if _REGION in row and chosen["label"] == "action-label":
            region_label(row, where)
        if not label:
            found.skipped["no label"] += 1
            continue
        start_s, end_s = (
            parse_time(row[chosen[end]], f"{where}, {chosen[end]}") for end in ("start", "end")
        )
        in_frames = [count(row[column], f"{where}, {column}") for column in frames]
        first, last = in_frames if len(in_frames) == 2 else (None, None)
        shown = None if first is None or last is None else (first, last)
        segments.setdefault(name, []).append(Segment(start_s, end_s, label, shown))
    if not found:
        raise AnnotationError(
            f"{table.path} has no rows.", remedy="Give a table with a header line."
        )
    for name, own in segments.items():
        found[name] = replace(found[name], segments=tuple(own))
    return found


def _column(role: str, table: Table, given: Mapping[str, str]) -> str:
    wanted = given.get(role)
    if wanted is not None:
        if wanted not in table.columns:
            raise AnnotationError(
                f"{table.path} has no column {wanted!r} for the {role}.",
                remedy=f"Its columns are {', '.join(map(repr, table.columns))}.",
            )
        return wanted
    found = _recognised(role, table.columns)
    if found is None:
        raise AnnotationError(
            f"{table.path} has no column that is recognised as the {role}; it has "
            f"{', '.join(map(repr, table.columns)) or 'none'}.",
            remedy=f"Name it: --column {role}=NAME.",
        )
    return found


def _recognised(role: str, columns: list[str]) -> str | None:
    by_name = {name.strip().lower(): name for name in reversed(columns)}
    return next((by_name[name] for name in KNOWN_COLUMNS[role] if name in by_name), None)


_METADATA = {"filename", "video-duration"}
_VIDEO_INFO = {"video", "subset"}


def _metadata(table: Table) -> Annotations:
    """The official metadata: of its columns, rate and frame count are the re-encoded video's."""
    found = Annotations(path=Path(table.path), dialect="tsp-metadata", kind="metadata")
    for where, row in table.rows():
        name = without_suffix(row["filename"] or "")
        duration_s = number(row["video-duration"], f"{where}, video-duration")
        _add(found, name, AnnotatedVideo(duration_s=duration_s), where)
    return found


def _video_info(table: Table) -> Annotations:
    """BSN's ``video_info_new.csv``."""
    found = Annotations(path=Path(table.path), dialect="video-info", kind="metadata")
    for where, row in table.rows():
        video = AnnotatedVideo(
            subset=row["subset"] or None,
            duration_s=number(row.get("seconds"), f"{where}, seconds"),
            n_frames=count(row.get("numFrame"), f"{where}, numFrame"),
            fps=number(row.get("fps"), f"{where}, fps"),
            feature_frame=number(row.get("featureFrame"), f"{where}, featureFrame"),
        )
        _add(found, row["video"] or "", video, where)
    return found


def _add(found: Annotations, name: str, video: AnnotatedVideo, where: str) -> None:
    if not name:
        raise AnnotationError(f"{where}: no video name.", remedy="Fill the column.")
    if name in found:
        raise AnnotationError(f"{where}: {name!r} stands there twice.", remedy="Remove one.")
    found[name] = video
