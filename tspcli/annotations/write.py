"""Write annotations in the dialects that readers of features expect."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tspcli.annotations.dialects import DIALECTS
from tspcli.annotations.segments import Annotations, Segment
from tspcli.core.files import replacing
from tspcli.core.video_names import store_key
from tspcli.errors import AnnotationError, UsageError

THUMOS14_TYPE_IDX: dict[str, int] = {
    "Ambiguous": 0,
    "BaseballPitch": 7,
    "BasketballDunk": 9,
    "Billiards": 12,
    "CleanAndJerk": 21,
    "CliffDiving": 22,
    "CricketBowling": 23,
    "CricketShot": 24,
    "Diving": 26,
    "FrisbeeCatch": 31,
    "GolfSwing": 33,
    "HammerThrow": 36,
    "HighJump": 40,
    "JavelinThrow": 45,
    "LongJump": 51,
    "PoleVault": 68,
    "Shotput": 79,
    "SoccerPenalty": 85,
    "TennisSwing": 92,
    "ThrowDiscus": 93,
    "VolleyballSpiking": 97,
}
"""THUMOS14's class numbers, those of UCF101 counted from 1, as in its annotation tables."""


@dataclass(frozen=True)
class DatabaseEntry:
    """A video for :func:`write_database`.

    Attributes:
        name: Its key in the file.
        subset: Its subset, in the reader's words.
        duration_s: Its duration in seconds.
        segments: Its segments.
        frame: The value of a ``frame`` field, for readers that have one.
        fps: The value of an ``fps`` field, likewise.
    """

    name: str
    subset: str | None
    duration_s: float | None
    segments: Sequence[Segment]
    frame: float | None = None
    fps: float | None = None


def write_database(
    path: Path, entries: Iterable[DatabaseEntry], label_ids: Mapping[str, int] | None = None
) -> None:
    """Write ActivityNet's JSON (``database``), with ``label_id`` if ids are given."""
    database: dict[str, Any] = {}
    for entry in entries:
        video: dict[str, Any] = {"subset": entry.subset, "duration": entry.duration_s}
        if entry.frame is not None:
            video["frame"] = entry.frame
        if entry.fps is not None:
            video["fps"] = entry.fps
        video["annotations"] = [
            {"segment": [s.start_s, s.end_s], "label": s.label}
            | ({} if label_ids is None else {"label_id": label_ids[s.label]})
            for s in entry.segments
        ]
        database[entry.name] = video
    write_json(path, {"version": "tspcli", "database": database})


def write_as(
    annotations: Annotations, dialect: str, out: Path, *, overwrite: bool = False
) -> list[Path]:
    """Write annotations in a dialect that can be written.

    Args:
        annotations: The segments.
        dialect: Its name.
        out: The file; for dialects of one file per video, the folder or the file of the only one.
        overwrite: Whether a file, or a folder that is not empty, may be written to.

    Returns:
        The files.

    Raises:
        UsageError: If the dialect is unknown or cannot be written, or ``out`` exists.
        AnnotationError: If a file cannot be written.
    """
    writers = {name: d.writer for name, d in DIALECTS.complete().items() if d.writer}
    if dialect not in writers:
        raise UsageError(
            f"Annotations cannot be written as {dialect!r}; use {', '.join(writers)}.",
            value=dialect,
        )
    if not overwrite and out.exists() and (out.is_file() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists.", remedy="Give another --out, or --overwrite.", option="out", value=out
        )
    module, name = writers[dialect].split(":")
    written: list[Path] = getattr(import_module(module), name)(out, annotations)
    return written


def write_activitynet(out: Path, annotations: Annotations) -> list[Path]:
    """Write ActivityNet's JSON, which the official evaluation code reads."""
    entries = (
        DatabaseEntry(name, video.subset, video.duration_s, video.segments)
        for name, video in annotations.items()
    )
    with replacing(out, error=AnnotationError) as aside:
        write_database(aside, entries)
    return [out]


def write_actions(out: Path, annotations: Annotations) -> list[Path]:
    """Write a table of video, start, end, label, and subset where there are any."""
    has_subsets = any(video.subset is not None for video in annotations.values())
    columns = ["video", "start", "end", "label", *(["subset"] if has_subsets else [])]
    rows = (
        (name, s.start_s, s.end_s, s.label, *([video.subset or ""] if has_subsets else []))
        for name, video in annotations.items()
        for s in video.segments
    )
    with replacing(out, error=AnnotationError) as aside:
        write_table(aside, columns, rows)
    return [out]


def write_each(
    out: Path,
    annotations: Annotations,
    suffix: str,
    text_of: Callable[[str, tuple[Segment, ...]], str],
) -> list[Path]:
    """Write one file per video: ``out`` itself for a single one, else into the folder ``out``.

    Args:
        out: The file or folder.
        annotations: The segments.
        suffix: Of the files in a folder.
        text_of: Gives a file's text from the video's name and segments.

    Returns:
        The files.

    Raises:
        AnnotationError: If several videos would be written into one file.
    """
    single = out.suffix.lower() == suffix
    if single and len(annotations) != 1:
        raise AnnotationError(
            f"{out} can hold one video, and there are {len(annotations)}.",
            remedy="Give a folder with --out.",
            path=out,
        )
    written = []
    for name, video in annotations.items():
        path = out if single else out / f"{store_key(name)}{suffix}"
        with replacing(path, error=AnnotationError) as aside:
            aside.write_text(text_of(name, video.segments), encoding="utf-8", newline="\n")
        written.append(path)
    return written


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def write_video_info(path: Path, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Write BSN's ``video_info_new.csv`` from (name, subset, BSN entry)."""
    columns = ("video", "numFrame", "seconds", "fps", "rfps", "subset", "featureFrame")
    write_table(
        path,
        columns,
        (
            (
                name,
                entry["duration_frame"],
                entry["duration_second"],
                entry["fps"],
                entry["rfps"],
                subset,
                entry["feature_frame"],
            )
            for name, subset, entry in rows
        ),
    )


def write_thumos_table(path: Path, videos: Iterable[tuple[str, Sequence[Segment], float]]) -> None:
    """Write G-TAD's THUMOS14 table from (name, segments, original frame rate).

    Frames are the annotated ones, else seconds times the rate, rounded down as in the published
    tables.
    """
    rows = []
    others: dict[str, int] = {}
    for name, segments, rate in videos:
        for segment in segments:
            number = THUMOS14_TYPE_IDX.get(segment.label)
            if number is None:
                number = others.setdefault(segment.label, 101 + len(others) + 1)
            start, end = segment.frames or (
                int(segment.start_s * rate + 1e-6),
                int(segment.end_s * rate + 1e-6),
            )
            rows.append((name, segment.label, number, segment.start_s, segment.end_s, start, end))
    columns = ("video", "type", "type_idx", "start", "end", "startFrame", "endFrame")
    write_table(path, columns, rows)


def write_bmt(
    path: Path, videos: Iterable[tuple[str, Sequence[Segment], float]], phase: str
) -> None:
    """Write BMT's tab-separated captions from (name, captions, duration in seconds).

    ``idx`` counts the rows, because BMT takes it for a row number. Its captioning loader stops at
    captions that end before they start.
    """
    rows: list[tuple[Any, ...]] = []
    for name, segments, duration in videos:
        for segment in segments:
            text = " ".join(segment.label.split())
            rows.append((name, text, segment.start_s, segment.end_s, duration, phase, len(rows)))
    columns = ("video_id", "caption", "start", "end", "duration", "phase", "idx")
    write_table(path, columns, rows, delimiter="\t")


def write_captions(path: Path, videos: Iterable[tuple[str, Sequence[Segment], float]]) -> None:
    """Write ActivityNet Captions' JSON, which PDVC reads, from (name, captions, duration)."""
    write_json(
        path,
        {
            name: {
                "duration": duration,
                "timestamps": [[s.start_s, s.end_s] for s in segments],
                "sentences": [s.label for s in segments],
            }
            for name, segments, duration in videos
        },
    )


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    delimiter: str = ",",
) -> None:
    """Write a table with a header line, quoting only where it is necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
