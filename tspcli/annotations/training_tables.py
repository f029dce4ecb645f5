"""The two tables that training reads, in the official columns, and what makes their rows.

Metadata (one row per video), ground truth (one row per segment), the facts of video files that
metadata needs, and the stretches between actions that become background rows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from tspcli.annotations.dialects import GapRule
from tspcli.annotations.dialects.table import region_label
from tspcli.annotations.segments import Segment
from tspcli.annotations.text_files import Table, number, read_text, seconds
from tspcli.core.regions import REGION_CLASSES
from tspcli.core.text import refuses_damage
from tspcli.core.video_names import without_suffix
from tspcli.errors import AnnotationError, VideoError
from tspcli.sampling.clock import display_end_s
from tspcli.video import list_videos, probe

METADATA_COLUMNS = ("filename", "video-duration", "fps", "video-frames")
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

CLIP_S = Fraction(16, 15)
"""Duration of a clip in the official recipe, in seconds."""


@dataclass(frozen=True)
class VideoEntry:
    """One video's row of a metadata table.

    Attributes:
        filename: The file's name, without folders.
        duration_s: Duration in seconds.
        fps: Frames per second, from the table or the file's header.
        n_frames: Number of frames in the file.
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
        AnnotationError: If a column is missing or a value does not fit, with the line.
    """
    table = Table(read_text(path, "metadata table"), path)
    table.require(METADATA_COLUMNS, "metadata table", f"Expected {','.join(METADATA_COLUMNS)}.")
    videos = []
    for place, row in table.rows():
        entry = VideoEntry(
            filename=row["filename"] or "",
            duration_s=seconds(row["video-duration"], place.at("video-duration")),
            fps=seconds(row["fps"], place.at("fps")),
            n_frames=int(seconds(row["video-frames"], place.at("video-frames"))),
        )
        if not entry.filename or entry.duration_s <= 0:
            raise place.error(
                f"a file name and a positive duration are needed, not {entry.filename!r} and "
                f"{entry.duration_s:g} s.",
                value=entry.duration_s,
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


@dataclass(frozen=True)
class GroundTruthRow:
    """One segment of one video.

    Attributes:
        video_name: The video's name in the annotations, without ``v_`` for ActivityNet.
        start_s: Start in seconds, as annotated; may lie outside the video.
        end_s: End in seconds, likewise.
        label: The action's class name; None for background.
        duration_s: Duration of the video, in seconds.
        filename: The video's file name, without folders.
        fps: Frames per second of the file.
        n_frames: Number of frames in the file.
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
        return REGION_CLASSES[0 if self.label is not None else 1]


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

    ``fps`` and ``video-frames`` may be missing or empty, because nothing depends on them. Without a
    ``temporal-region-label`` an empty ``action-label`` means background.

    Raises:
        AnnotationError: If a column is missing, a value does not fit, or the two labels of a row
            contradict each other, with the line.
    """
    table = Table(read_text(path, "ground-truth table"), path)
    needed = ("filename", "t-start", "t-end", "action-label", "video-duration")
    expected = f"Expected {','.join(GROUNDTRUTH_COLUMNS)}; `tsp annotations` writes them."
    table.require(needed, "ground-truth table", expected)
    rows = []
    for place, raw in table.rows():
        filename = raw["filename"] or ""
        if not filename:
            raise place.at("filename").error("the file name is empty.")
        rows.append(
            GroundTruthRow(
                video_name=raw.get("video-name") or Path(filename).stem,
                start_s=seconds(raw["t-start"], place.at("t-start")),
                end_s=seconds(raw["t-end"], place.at("t-end")),
                label=region_label(raw, place),
                duration_s=seconds(raw["video-duration"], place.at("video-duration")),
                filename=filename,
                fps=number(raw.get("fps"), place.at("fps")) or 0.0,
                n_frames=int(number(raw.get("video-frames"), place.at("video-frames")) or 0),
            )
        )
    if not rows:
        raise AnnotationError(f"The ground-truth table {path} has no rows.", path=path)
    return rows


def background_segments(
    actions: Iterable[Segment],
    duration_s: float,
    *,
    min_gap_s: float,
    rule: GapRule = "union",
) -> list[tuple[float, float]]:
    """The gaps before, between and after a video's actions.

    Args:
        actions: In any order; they may overlap.
        duration_s: Duration of the video, in seconds.
        min_gap_s: Shorter gaps are left out. The released tables have 5.333 s for ActivityNet and
            1.0667 s for THUMOS14.
        rule: ``union`` takes the gaps of the union of all actions, so that no background row
            overlaps an action. ``official`` reproduces the released ActivityNet tables, flaw
            included: a gap starts where the action that *started* last ends, so the rest of a long
            action with a short one inside it counts as background (this affects 26 of 4,728
            validation videos).

    Returns:
        (start, end) in seconds, in time order. Where actions are annotated beyond the video's end,
        a gap between them may lie there too, as in the released tables; training clamps every row
        to the video.
    """
    gaps: list[tuple[float, float]] = []
    free_from_s = 0.0
    for action in sorted(actions):
        if action.start_s - free_from_s >= min_gap_s:
            gaps.append((free_from_s, action.start_s))
        free_from_s = max(free_from_s, action.end_s) if rule == "union" else action.end_s
    if duration_s - free_from_s >= min_gap_s:
        gaps.append((free_from_s, duration_s))
    return gaps


@dataclass
class ProbeResult:
    """The videos of a folder.

    Attributes:
        videos: The readable videos, in the order of their names.
        failed: The reason for each unreadable file, by file name.
    """

    videos: list[VideoEntry] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def probe_folder(
    folder: str | Path, *, on_video: Callable[[str, int, int], None] | None = None
) -> ProbeResult:
    """Read duration, frame rate and frame count of every video in a folder.

    Args:
        folder: Searched recursively.
        on_video: Called with (file name, files done, files in all) after each file.

    Raises:
        AnnotationError: If the folder holds no readable video.
    """
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
            f"No video in {folder} can be read ({len(result.failed)} failed).", path=folder
        )
    return result


def probe_entry(path: Path) -> VideoEntry:
    """Read one video's row of a metadata table.

    Where the header has no frame count (Matroska and WebM never do), the packets are counted, which
    reads the file but decodes nothing. As in the official tables, ``video-duration`` is frames
    divided by rate: the length of the pictures, not of the sound.

    Raises:
        VideoError: If the file is not a video, or has no frames.
    """
    info = probe(path)
    n_frames, fps = info.n_frames, info.fps
    if not n_frames or not fps:
        n_frames, fps = _count_packets(path, info.stream_index)
    return VideoEntry(path.name, float(n_frames / fps), float(fps), n_frames)


def _count_packets(path: Path, stream_index: int) -> tuple[int, Fraction]:
    import av

    times: list[Fraction] = []
    last_duration: Fraction | None = None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams[stream_index]
            for packet in container.demux(stream):
                if packet.pts is None or packet.time_base is None:
                    continue
                times.append(packet.pts * packet.time_base)
                if packet.duration:
                    last_duration = packet.duration * packet.time_base
    except (av.FFmpegError, OSError, IndexError) as error:
        raise VideoError("damaged", str(error), path=path) from error
    if not times:
        raise VideoError("no-frames", path=path)
    times.sort()
    shown_s = display_end_s(times, last_duration) - times[0]
    if shown_s <= 0:
        raise VideoError("no-frames", "one frame without a duration", path=path)
    return len(times), len(times) / shown_s
