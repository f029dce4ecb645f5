"""Tables of videos without actions: official TSP's metadata and BSN's ``video_info_new.csv``.

Of the official metadata only durations are taken: its frame rate and frame count belong to the
re-encoded videos.
"""

from __future__ import annotations

from tspcli.annotations.segments import AnnotatedVideo, Annotations
from tspcli.annotations.text_files import Place, Row, Source, count, number
from tspcli.core.video_names import Spellings, without_suffix

_OFFICIAL = {"filename", "video-duration"}
_VIDEO_INFO = {"video", "subset"}


def detects(source: Source) -> bool:
    """Whether the source is a table with the columns of either."""
    if not source.is_table:
        return False
    columns = set(source.table().columns)
    return columns >= _OFFICIAL or columns >= _VIDEO_INFO


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: If a column is missing, a value is not a number, or a video appears twice.
    """
    table = source.table()
    official = set(table.columns) >= _OFFICIAL
    if not official:
        table.require(_VIDEO_INFO, "table of videos", "Expected video,subset,...")
    found = Annotations(path=source.path, kind="metadata")
    spellings = Spellings()
    for place, row in table.rows():
        name, video = _official(row, place) if official else _video_info(row, place)
        if not name:
            raise place.error("the video has no name.")
        if spellings.first(name) in found:
            raise place.error(f"{name!r} appears twice.", video=name)
        found[name] = video
    return found


def _official(row: Row, place: Place) -> tuple[str, AnnotatedVideo]:
    duration_s = number(row["video-duration"], place.at("video-duration"))
    return without_suffix(row["filename"] or ""), AnnotatedVideo(duration_s=duration_s)


def _video_info(row: Row, place: Place) -> tuple[str, AnnotatedVideo]:
    return row["video"] or "", AnnotatedVideo(
        subset=row["subset"] or None,
        duration_s=number(row.get("seconds"), place.at("seconds")),
        n_frames=count(row.get("numFrame"), place.at("numFrame")),
        fps=number(row.get("fps"), place.at("fps")),
        feature_frame=number(row.get("featureFrame"), place.at("featureFrame")),
    )
