"""Projects of VIA 3, the VGG Image Annotator for video and audio.

``{"project": ..., "attribute": {ID: ...}, "file": {ID: {"fname": ...}}, "view": {ID: {"fid_list":
[...]}}, "metadata": {ID: {"vid": view, "z": [start, end], "xy": [], "av": {attribute: value}}}}``.
Temporal segments are read, regions and single moments counted as skipped. A segment's label is the
value of its attribute, or the values of several with commas between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, seconds
from tspcli.core.video_names import Spellings, without_suffix

_PARTS = ("project", "attribute", "file", "view", "metadata")
_CHECKBOX = 2


def detects(source: Source) -> bool:
    """Whether it is JSON with the parts of a project."""
    return source.is_json and all(isinstance(source.json.get(part), dict) for part in _PARTS)


def read(source: Source) -> Annotations:
    """Read it; a file without segments is a video without actions.

    Raises:
        AnnotationError: If a part is missing, or a segment is of no view, or has no times.
    """
    project, place = source.json, Place(source.path)
    missing = [part for part in _PARTS if not isinstance(project.get(part), dict)]
    if missing:
        raise place.error(f"the project has no {missing[0]!r}.", missing=missing[0])
    found = Annotations(path=source.path)
    segments: dict[str, list[Segment]] = {}
    spellings = Spellings()
    for file in project["file"].values():
        segments.setdefault(spellings.first(_name(file, place)), [])
    for key, item in project["metadata"].items():
        times = item.get("z") or []
        if item.get("xy") or len(times) != 2:
            found.skipped["a region or a single moment"] += 1
            continue
        where = Place(source.path, field=f"metadata {key}")
        start_s, end_s = (seconds(time, where) for time in times)
        label = _label(item.get("av") or {}, project["attribute"])
        if not label:
            found.skipped["no label"] += 1
            continue
        name = spellings.first(_video(item.get("vid"), project, where))
        segments[name].append(Segment(start_s, end_s, label))
    for name, own in segments.items():
        found[name] = AnnotatedVideo(tuple(sorted(own, key=lambda segment: segment[:2])))
    if not found:
        raise place.error("the project has no file.")
    return found


def _name(file: Mapping[str, Any], place: Place) -> str:
    name = without_suffix(str(file.get("fname", "")))
    if not name:
        raise place.error(f"{file!r} has no file name.", value=file)
    return name


def _video(view: Any, project: Mapping[str, Any], place: Place) -> str:
    """The video of a view; of several files it shows, segments belong to the first."""
    files = (project["view"].get(str(view)) or {}).get("fid_list") or []
    file = project["file"].get(str(files[0])) if files else None
    if file is None:
        raise place.error(f"its view {view!r} shows no file of the project.", value=view)
    return _name(file, place)


def _label(values: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """The values of a segment's attributes; choices are stored by the numbers of their options."""
    words = []
    for key, value in values.items():
        attribute = attributes.get(key) or {}
        options = attribute.get("options") or {}
        chosen = str(value).split(",") if attribute.get("type") == _CHECKBOX else [str(value)]
        words += [str(options.get(one, one)).strip() for one in chosen]
    return ", ".join(word for word in words if word)
