"""Captions: ActivityNet Captions' JSON, and BMT's tables made from it.

``{"v_ID": {"duration": ..., "timestamps": [[t0, t1]], "sentences": [text]}}``, or the columns
``video_id, caption, start, end``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tspcli.annotations.dialects import table
from tspcli.annotations.dialects.activitynet import videos_of
from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, label, number, seconds

_COLUMNS = {"video_id", "caption", "start", "end"}


def detects(source: Source) -> bool:
    """Whether the source is JSON with ``timestamps``, or a table with a ``caption``."""
    if source.is_table:
        return set(source.table().columns) >= _COLUMNS
    return source.is_json and "timestamps" in source.first_video


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: At the first value that does not fit.
    """
    if source.is_table:
        return table.read_segments(source.table(), {"label": "caption"}, "captions")
    return videos_of(source, source.json, _video, "captions")


def _video(entry: Mapping[str, Any], place: Place) -> AnnotatedVideo:
    try:
        pairs = list(zip(entry["timestamps"], entry["sentences"], strict=True))
        spans = [(start, end, text) for (start, end), text in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise place.error(
            f"the timestamps and sentences do not match ({type(error).__name__}: {error}).",
            remedy='Expected {"duration": ..., "timestamps": [[start, end]], "sentences": [text]}.',
        ) from error
    times, sentences = place.at("timestamps"), place.at("sentences")
    return AnnotatedVideo(
        tuple(
            Segment(seconds(start, times), seconds(end, times), label(text, sentences, "caption"))
            for start, end, text in spans
        ),
        number(entry.get("duration"), place.at("duration")),
    )
