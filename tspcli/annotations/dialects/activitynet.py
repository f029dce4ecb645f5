"""ActivityNet's JSON, as released and as many other data sets write it.

``{"database": {ID: {"subset": ..., "duration": ..., "annotations": [{"segment": [t0, t1],
"label": ...}]}}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Kind, Segment
from tspcli.annotations.text_files import (
    Place,
    Source,
    count,
    label,
    number,
    require_one_form,
    seconds,
)


def detects(source: Source) -> bool:
    """Whether the source is JSON with a ``database``."""
    return source.is_json and isinstance(source.json.get("database"), dict)


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: At the first value that does not fit.
    """
    database = source.json.get("database")
    if not isinstance(database, dict):
        raise Place(source.path).error('there is no object "database".')
    return videos_of(source, database, _video)


def _video(entry: Mapping[str, Any], place: Place) -> AnnotatedVideo:
    subset = entry.get("subset")
    return AnnotatedVideo(
        segments_of(entry, place),
        number(entry.get("duration"), place.at("duration")),
        None if subset is None else label(subset, place.at("subset"), "subset"),
        count(entry.get("frame"), place.at("frame")),
        number(entry.get("fps"), place.at("fps")),
    )


def videos_of(
    source: Source,
    videos: Mapping[str, Any],
    read_video: Callable[[Mapping[str, Any], Place], AnnotatedVideo],
    kind: Kind = "actions",
) -> Annotations:
    """The videos of a JSON object by name, each read from its own object.

    Raises:
        AnnotationError: If there is no video, one is not an object, or one appears in two Unicode
            forms.
    """
    require_one_form(videos, source.path)
    found = Annotations(path=source.path, kind=kind)
    for name, entry in videos.items():
        place = Place(source.path, video=name)
        if not isinstance(entry, dict):
            raise place.error(f"{entry!r} is not an object.", value=entry)
        found[name] = read_video(entry, place)
    if not found:
        raise Place(source.path).error("there is no video.")
    return found


def segments_of(entry: Mapping[str, Any], place: Place) -> tuple[Segment, ...]:
    """The segments in a video's ``annotations``.

    Raises:
        AnnotationError: If one is not ``{"segment": [start, end], "label": name}``.
    """
    return tuple(_segment(item, place) for item in entry.get("annotations") or ())


def _segment(item: Any, place: Place) -> Segment:
    try:
        (start, end), name = item["segment"], item["label"]
    except (KeyError, TypeError, ValueError) as error:
        raise place.error(
            f"{item!r} is not an annotation.",
            remedy='Expected {"segment": [start, end], "label": name}, in seconds.',
            value=item,
        ) from error
    where = place.at("segment")
    return Segment(seconds(start, where), seconds(end, where), label(name, place.at("label")))
