"""The tables that training reads: one row a segment, in the columns of the official ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tspcli.errors import AnnotationError
from tspcli.parsing import parse_json, refuses_damage

GROUNDTRUTH_COLUMNS = (
    "video-name",
    "t-start",
    "t-end",
    "action-label",
    "video-duration",
    "filename",
    "fps",
    "video-frames",
    "temporal-region-label",
)
REGION_LABELS = ("Action", "No action")
"""Names of the temporal region classes; a name's index is its id."""


@dataclass(frozen=True)
class GroundTruthRow:
    """One segment of one video.

    Attributes:
        video_name: As the annotations call it, for ActivityNet without ``v_``.
        start_s: Seconds from the video's start, as annotated; may lie outside the video.
        end_s: Likewise.
        label: The action's class name; None for background.
        duration_s: Of the video.
        filename: Of the video, without folders.
        fps: Frames a second of the file.
        n_frames: Frames in the file.
    """

    video_name: str
    start_s: float
    end_s: float
    label: str | None
    duration_s: float
    filename: str
    fps: float
    n_frames: int

    @property
    def region(self) -> str:
        """``Action`` or ``No action``."""
        return REGION_LABELS[0 if self.label is not None else 1]


def write_groundtruth(path: Path, rows: Iterable[GroundTruthRow]) -> None:
    """Write a ground-truth table in the official columns."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(GROUNDTRUTH_COLUMNS)
        for row in rows:
            writer.writerow(
                [
                    row.video_name,
                    row.start_s,
                    row.end_s,
                    row.label or "",
                    row.duration_s,
                    row.filename,
                    row.fps,
                    row.n_frames,
                    row.region,
                ]
            )


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_groundtruth(path: str | Path) -> list[GroundTruthRow]:
    """Read a ground-truth table.

    ``fps`` and ``video-frames`` may be missing or empty: nothing here depends on them. Without a
    ``temporal-region-label`` an empty ``action-label`` means background.

    Raises:
        AnnotationError: If a column is missing, a value is no number, or the two labels of a row
            contradict each other, naming the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"The ground-truth table {path} cannot be read: {error}.", remedy="Check the path."
        ) from error
    reader = csv.DictReader(lines)
    needed = ("filename", "t-start", "t-end", "action-label", "video-duration")
    missing = [name for name in needed if name not in (reader.fieldnames or [])]
    if missing:
        raise AnnotationError(
            f"The ground-truth table {path} lacks the columns {', '.join(missing)}.",
            remedy=f"Expected {','.join(GROUNDTRUTH_COLUMNS)}; `tsp annotations` writes them.",
        )
    rows = []
    for raw in reader:
        where = f"{path}, line {reader.line_num}"
        label = (raw["action-label"] or "").strip() or None
        region = (raw.get("temporal-region-label") or "").strip()
        if region and region not in REGION_LABELS:
            raise AnnotationError(
                f"{where}: temporal-region-label is {region!r}.",
                remedy=f"It is {' or '.join(map(repr, REGION_LABELS))}.",
            )
        if region and (region == REGION_LABELS[0]) != (label is not None):
            raise AnnotationError(
                f"{where}: the region is {region!r}, but the action label is {label!r}.",
                remedy="An action has a label; background has none.",
            )
        try:
            rows.append(
                GroundTruthRow(
                    video_name=raw.get("video-name") or Path(raw["filename"]).stem,
                    start_s=_number(raw["t-start"]),
                    end_s=_number(raw["t-end"]),
                    label=label,
                    duration_s=_number(raw["video-duration"]),
                    filename=raw["filename"],
                    fps=float(raw.get("fps") or 0.0),
                    n_frames=int(float(raw.get("video-frames") or 0)),
                )
            )
        except (TypeError, ValueError) as error:
            raise AnnotationError(f"{where}: {error}.", remedy="Times are seconds.") from error
    if not rows:
        raise AnnotationError(f"The ground-truth table {path} has no rows.", remedy="Check it.")
    return rows


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(f"{text!r} is no finite number")
    return value


@refuses_damage(AnnotationError, "Give a JSON list of names.")
def read_label_mapping(path: str | Path) -> list[str]:
    """Read a JSON list of class names, index = class id.

    Raises:
        AnnotationError: If it is no list of distinct names.
    """
    path = Path(path)
    try:
        names = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"The label mapping {path} cannot be read: {error}.",
            remedy="Give a JSON list of names.",
        ) from error
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not names:
        raise AnnotationError(
            f"The label mapping {path} is no list of names.", remedy='Expected ["name", …].'
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(
            f"The label mapping {path} names {twice[0]!r} twice.", remedy="Every class stands once."
        )
    return names


def write_label_mapping(path: Path, names: list[str]) -> None:
    """Write class names as a JSON list, one a line."""
    path.write_text(
        json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
    )
