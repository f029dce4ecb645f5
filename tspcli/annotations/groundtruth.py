"""The tables that training reads: one row a segment, in the columns of the official ones."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tspcli.annotations.files import Table, number, read_text, seconds
from tspcli.annotations.tables import REGION_LABELS, region_label
from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage

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
    table = Table(read_text(path, "ground-truth table"), path)
    needed = ("filename", "t-start", "t-end", "action-label", "video-duration")
    expected = f"Expected {','.join(GROUNDTRUTH_COLUMNS)}; `tsp annotations` writes them."
    table.require(needed, "ground-truth table", expected)
    rows = []
    for where, raw in table.rows():
        filename = raw["filename"] or ""
        if not filename:
            raise AnnotationError(f"{where}: filename is empty.", remedy="Fill it.")
        rows.append(
            GroundTruthRow(
                video_name=raw.get("video-name") or Path(filename).stem,
                start_s=seconds(raw["t-start"], f"{where}, t-start"),
                end_s=seconds(raw["t-end"], f"{where}, t-end"),
                label=region_label(raw, where),
                duration_s=seconds(raw["video-duration"], f"{where}, video-duration"),
                filename=filename,
                fps=number(raw.get("fps"), f"{where}, fps") or 0.0,
                n_frames=int(number(raw.get("video-frames"), f"{where}, video-frames") or 0),
            )
        )
    if not rows:
        raise AnnotationError(f"The ground-truth table {path} has no rows.", remedy="Check it.")
    return rows
