"""Metadata tables: how long the videos are."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tspcli.annotations.files import Table, read_text, seconds
from tspcli.annotations.names import without_suffix
from tspcli.errors import AnnotationError
from tspcli.parsing import refuses_damage

METADATA_COLUMNS = ("filename", "video-duration", "fps", "video-frames")


@dataclass(frozen=True)
class VideoEntry:
    """One video's row of a metadata table.

    Attributes:
        filename: The file's name, without folders.
        duration_s: In seconds.
        fps: Frames a second, as the table or the file's header says.
        n_frames: Frames in the file.
    """

    filename: str
    duration_s: float
    fps: float
    n_frames: int

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return without_suffix(self.filename)


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_metadata(path: str | Path) -> list[VideoEntry]:
    """Read a table with the columns of :data:`METADATA_COLUMNS`.

    Raises:
        AnnotationError: If a column is missing or a value is no number, naming the line.
    """
    table = Table(read_text(path, "metadata table"), path)
    table.require(METADATA_COLUMNS, "metadata table", f"Expected {','.join(METADATA_COLUMNS)}.")
    videos = []
    for where, row in table.rows():
        entry = VideoEntry(
            filename=row["filename"] or "",
            duration_s=seconds(row["video-duration"], f"{where}, video-duration"),
            fps=seconds(row["fps"], f"{where}, fps"),
            n_frames=int(seconds(row["video-frames"], f"{where}, video-frames")),
        )
        if not entry.filename or entry.duration_s <= 0:
            raise AnnotationError(
                f"{where}: {entry.filename!r} lasts {entry.duration_s:g} s.",
                remedy="Every row needs a file name, a positive duration, a rate and a count.",
            )
        videos.append(entry)
    return videos


def write_metadata(path: Path, videos: Iterable[VideoEntry]) -> None:
    """Write a metadata table in the official columns."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(METADATA_COLUMNS)
        for video in videos:
            writer.writerow([video.filename, video.duration_s, video.fps, video.n_frames])
