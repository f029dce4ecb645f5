"""How long the videos are: read from a metadata table, or probed from the files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tspcli.errors import AnnotationError, VideoError
from tspcli.parsing import refuses_damage
from tspcli.pretraining.annotations.table import without_suffix

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


@dataclass
class ProbeResult:
    """What probing a folder found.

    Attributes:
        videos: Those that can be read, in the order of their names.
        failed: File name to reason, for those that cannot.
    """

    videos: list[VideoEntry] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@refuses_damage(AnnotationError, "Give a CSV file in UTF-8 with a header line.")
def read_metadata(path: str | Path) -> list[VideoEntry]:
    """Read a table with the columns of :data:`METADATA_COLUMNS`.

    Raises:
        AnnotationError: If a column is missing or a value is no number, naming the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"The metadata table {path} cannot be read: {error}.", remedy="Check the path."
        ) from error
    reader = csv.DictReader(lines)
    missing = [name for name in METADATA_COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise AnnotationError(
            f"The metadata table {path} lacks the columns {', '.join(missing)}.",
            remedy=f"Expected {','.join(METADATA_COLUMNS)}.",
        )
    videos = []
    for row in reader:
        try:
            entry = VideoEntry(
                filename=row["filename"],
                duration_s=float(row["video-duration"]),
                fps=float(row["fps"]),
                n_frames=int(float(row["video-frames"])),
            )
            if not 0 < entry.duration_s < float("inf"):
                raise ValueError(f"a duration of {row['video-duration']} s")
        except (TypeError, ValueError) as error:
            raise AnnotationError(
                f"{path}, line {reader.line_num}: {error}.",
                remedy="Every row needs a file name, a positive duration, a rate and a count.",
            ) from error
        videos.append(entry)
    return videos


def write_metadata(path: Path, videos: Iterable[VideoEntry]) -> None:
    """Write a metadata table in the official columns."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(METADATA_COLUMNS)
        for video in videos:
            writer.writerow([video.filename, video.duration_s, video.fps, video.n_frames])


def probe_folder(
    folder: str | Path, *, on_video: Callable[[str, int, int], None] | None = None
) -> ProbeResult:
    """Read duration, frame rate and frame count of every video in a folder.

    Args:
        folder: Searched with its subfolders.
        on_video: Called with each file's name, how many are done and how many there are.

    Raises:
        AnnotationError: If the folder holds no video that can be read.
    """
    from tspcli.pretraining.annotations.probing import probe_entry
    from tspcli.video import list_videos

    files = list_videos([folder])
    result = ProbeResult()
    for done, file in enumerate(files, start=1):
        try:
            result.videos.append(probe_entry(file.path))
        except VideoError as error:
            result.failed[file.path.name] = error.detail
        if on_video is not None:
            on_video(file.path.name, done, len(files))
    if not result.videos:
        raise AnnotationError(
            f"No video in {folder} can be read ({len(result.failed)} failed).",
            remedy="Check the folder.",
        )
    return result
