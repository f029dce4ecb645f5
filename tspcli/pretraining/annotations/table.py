"""Any table of video, start, end and label."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage
from tspcli.pretraining.annotations.model import ActionSegment, Annotations

KNOWN_COLUMNS: dict[str, tuple[str, ...]] = {
    "video": ("video", "video-name", "video_name", "video_id", "filename", "file", "name"),
    "start": ("start", "t-start", "t_start", "start_s", "start_time", "begin", "from"),
    "end": ("end", "t-end", "t_end", "end_s", "end_time", "stop", "to"),
    "label": ("label", "action-label", "action_label", "type", "class", "action", "category"),
}
"""Column names that are recognised without being told, most telling first."""

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts")


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_table(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Annotations:
    """Read a CSV, TSV or semicolon-separated table with a header line.

    Args:
        path: The table. Times are seconds, or ``minutes:seconds``, or ``hours:minutes:seconds``.
        columns: Names of the columns ``video``, ``start``, ``end`` and ``label`` where they are
            none of :data:`KNOWN_COLUMNS`.

    Returns:
        Annotations; rows without a label (background in the official tables) are skipped and
        counted. A ``subset`` column, if there is one, is kept.

    Raises:
        AnnotationError: If a column is missing or a value is no time, naming the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"There is no table {path}.", remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"{path} cannot be read as text: {error}.", remedy="Give a CSV file in UTF-8."
        ) from error
    lines = text.splitlines()
    reader = csv.DictReader(lines, delimiter=_delimiter(lines[0] if lines else ""))
    header = [name for name in (reader.fieldnames or []) if name]
    chosen = {role: _column(role, header, columns or {}, path) for role in KNOWN_COLUMNS}
    subset_column = next((n for n in header if n.strip().lower() in ("subset", "split")), None)
    annotations = Annotations(segments={})
    for row in reader:
        line = reader.line_num
        name = without_suffix((row[chosen["video"]] or "").strip())
        if not name:
            raise AnnotationError(
                f"{path}, line {line}: no video name.",
                remedy=f"Fill the column {chosen['video']!r}.",
            )
        if subset_column and row[subset_column]:
            annotations.subsets[name] = row[subset_column].strip()
        segments = annotations.segments.setdefault(name, [])
        label = (row[chosen["label"]] or "").strip()
        if not label:
            annotations.skipped["no label"] = annotations.skipped.get("no label", 0) + 1
            continue
        start_s = parse_time(row[chosen["start"]], f"{path}, line {line}, {chosen['start']}")
        end_s = parse_time(row[chosen["end"]], f"{path}, line {line}, {chosen['end']}")
        segments.append(ActionSegment(start_s, end_s, label))
    if not annotations.segments:
        raise AnnotationError(f"{path} has no rows.", remedy="Give a table with a header line.")
    return annotations


def without_suffix(name: str) -> str:
    """A video's name without folders and without its file extension, if it has a video's."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in VIDEO_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def parse_time(value: str | None, where: str) -> float:
    """Seconds from ``12.5``, ``1:02.5`` or ``1:01:02.5``.

    Raises:
        AnnotationError: If it is none of these.
    """
    try:
        parts = [float(part) for part in (value or "").strip().split(":")]
        if not 1 <= len(parts) <= 3 or not all(abs(part) < float("inf") for part in parts):
            raise ValueError
    except ValueError:
        raise AnnotationError(
            f"{where}: {value!r} is no time.", remedy="Write seconds, such as 12.5, or 1:02.5."
        ) from None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)


def _column(role: str, header: list[str], given: Mapping[str, str], path: Path) -> str:
    wanted = given.get(role)
    if wanted is not None:
        if wanted not in header:
            raise AnnotationError(
                f"{path} has no column {wanted!r} for the {role}.",
                remedy=f"Its columns are {', '.join(map(repr, header))}.",
            )
        return wanted
    by_name = {name.strip().lower(): name for name in reversed(header)}
    for known in KNOWN_COLUMNS[role]:
        if known in by_name:
            return by_name[known]
    raise AnnotationError(
        f"{path} has no column that is recognised as the {role}; it has "
        f"{', '.join(map(repr, header)) or 'none'}.",
        remedy=f"Name it: --column {role}=NAME.",
    )
