"""Duration, rate and frame count of video files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from tspcli.annotations.metadata import VideoEntry
from tspcli.errors import AnnotationError, VideoError
from tspcli.timeline import display_end_s
from tspcli.video import list_videos, probe


@dataclass
class ProbeResult:
    """What probing a folder found.

    Attributes:
        videos: Those that can be read, in the order of their names.
        failed: File name to reason, for those that cannot.
    """

    videos: list[VideoEntry] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


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


def probe_entry(path: Path) -> VideoEntry:
    """Read one video's row of a metadata table.

    What the header tells is taken; where it tells no frame count (Matroska and WebM never do), the
    packets are counted, which reads the file but decodes nothing. ``video-duration`` is frames over
    rate, as in the official tables, so that it is the length of the pictures and not of the sound.

    Raises:
        VideoError: If the file is no video, or has no frames.
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
