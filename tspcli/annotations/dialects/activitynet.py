"""JSON: ActivityNet's release, that of BSN and its successors, and captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Kind, Segment
from tspcli.annotations.text_files import (
    count,
    json_value,
    looks_like_json,
    number,
    read_text,
    seconds,
)
from tspcli.core.text import refuses_damage
from tspcli.errors import AnnotationError

_SHAPES = (
    'Expected {"database": {ID: {"annotations": …}}}, {"v_ID": {"annotations": …}} as BSN and its '
    'successors write it, or captions: {"v_ID": {"timestamps": …}}.'
)


@refuses_damage(AnnotationError, "Give ActivityNet's JSON as released.")
def read_activitynet(path: str | Path) -> Annotations:
    """Read ActivityNet's annotations of actions.

    Two layouts are understood: that of the release, ``{"database": {ID: {"subset":…, "duration":…,
    "annotations": [{"segment": [t0, t1], "label":…}]}}}``, and that of BSN and its successors
    (``anet_anno_action.json``), ``{"v_ID": {"annotations": […]}}``, which tells no subset.

    Raises:
        AnnotationError: If the file is neither, naming the first video that does not fit.
    """
    text = read_text(path, "annotation file")
    if text.strip() and not looks_like_json(text):
        raise AnnotationError(
            f"{path} is no JSON.",
            remedy="`tsp annotations csv` reads tables, `thumos14` the files of THUMOS14.",
        )
    found = parse_json_annotations(text, path)
    if found.kind != "actions":
        raise AnnotationError(f"{path} holds {found.kind}, no actions.", remedy=_SHAPES)
    return found


def parse_json_annotations(text: str, path: str | Path) -> Annotations:
    """The annotations of a JSON text, whichever of the layouts it is in.

    Raises:
        AnnotationError: If it is in none, or a video does not fit.
    """
    data = json_value(text, path, "annotation file")
    if not isinstance(data, dict):
        raise AnnotationError(f"{path} is JSON, but no table of videos.", remedy=_SHAPES)
    database = data.get("database")
    if isinstance(database, dict):
        return _read(path, database, "activitynet", "actions", _activitynet)
    first = next(iter(data.values()), None)
    if isinstance(first, dict) and "timestamps" in first:
        return _read(path, data, "captions", "captions", _captions)
    if isinstance(first, dict) and "annotations" in first:
        return _read(path, data, "bsn", "actions", _bsn)
    raise AnnotationError(
        f"{path} is JSON in no dialect of annotations that is known here.", remedy=_SHAPES
    )


def _read(
    path: str | Path,
    videos: dict[str, Any],
    dialect: str,
    kind: Kind,
    read: Callable[[dict[str, Any], str], AnnotatedVideo],
) -> Annotations:
    found = Annotations(path=Path(path), dialect=dialect, kind=kind)
    for name, entry in videos.items():
        where = f"{path}, video {name!r}"
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: {entry!r} is no object.", remedy=_SHAPES)
        found[name] = read(entry, where)
    if not found:
        raise AnnotationError(f"{path} holds no video.", remedy="Give the full annotation file.")
    return found


def _activitynet(entry: dict[str, Any], where: str) -> AnnotatedVideo:
    subset = entry.get("subset")
    return AnnotatedVideo(
        _segments(entry, where),
        number(entry.get("duration"), f"{where}, duration"),
        None if subset is None else str(subset),
        count(entry.get("frame"), f"{where}, frame"),
        number(entry.get("fps"), f"{where}, fps"),
    )


def _bsn(entry: dict[str, Any], where: str) -> AnnotatedVideo:
    if "annotations" not in entry:
        raise AnnotationError(f"{where} has no 'annotations'.", remedy=_SHAPES)
    return AnnotatedVideo(
        _segments(entry, where),
        number(entry.get("duration_second"), f"{where}, duration_second"),
        n_frames=count(entry.get("duration_frame"), f"{where}, duration_frame"),
        fps=number(entry.get("fps"), f"{where}, fps"),
        feature_frame=number(entry.get("feature_frame"), f"{where}, feature_frame"),
    )


def _captions(entry: dict[str, Any], where: str) -> AnnotatedVideo:
    try:
        pairs = list(zip(entry["timestamps"], entry["sentences"], strict=True))
        spans = [(start, end, str(text)) for (start, end), text in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{where}: its captions do not fit ({type(error).__name__}: {error}).",
            remedy='Expected {"duration": …, "timestamps": [[start, end]], "sentences": [text]}.',
        ) from error
    return AnnotatedVideo(
        tuple(Segment(seconds(s, where), seconds(e, where), text) for s, e, text in spans),
        number(entry.get("duration"), f"{where}, duration"),
    )


def _segments(entry: dict[str, Any], where: str) -> tuple[Segment, ...]:
    return tuple(_segment(item, where) for item in entry.get("annotations") or ())


def _segment(item: Any, where: str) -> Segment:
    try:
        (start, end), label = item["segment"], item["label"]
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{where}: {item!r} is no annotation.",
            remedy='Expected {"segment": [start, end], "label": name}, in seconds.',
        ) from error
    return Segment(seconds(start, where), seconds(end, where), str(label))
