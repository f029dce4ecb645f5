"""ActivityNet's JSON, in the layout of its release and in that of the BSN family of methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tspcli.errors import AnnotationError
from tspcli.parsing import parse_json, refuses_damage
from tspcli.pretraining.annotations.model import ActionSegment, Annotations

SUBSET_NAMES = {"training": "train", "validation": "valid", "testing": "test"}


@refuses_damage(AnnotationError, "Give ActivityNet's JSON as released.")
def read_activitynet(path: str | Path) -> Annotations:
    """Read ActivityNet annotations.

    Two layouts are understood: that of the release, ``{"database": {ID: {"subset":…,
    "annotations": [{"segment": [t0, t1], "label":…}]}}}``, and that of BSN and its successors
    (``anet_anno_action.json``), ``{"v_ID": {"annotations": […]}}``, which tells no subset.

    Raises:
        AnnotationError: If the file is neither, naming the first video that does not fit.
    """
    path = Path(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnnotationError(
            f"There is no annotation file {path}.", remedy="Check the path."
        ) from None
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"{path} cannot be read as JSON: {error}.",
            remedy="Give ActivityNet's JSON, as released or as BSN and its successors write it.",
        ) from error
    videos = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise AnnotationError(
            f"{path} is JSON, but holds no table of videos.",
            remedy='Expected {"database": {ID: …}} or {"v_ID": {"annotations": […]}}.',
        )
    annotations = Annotations(segments={})
    for name, entry in videos.items():
        annotations.segments[name] = _segments(entry, name, path)
        subset = entry.get("subset")
        if subset is not None:
            annotations.subsets[name] = SUBSET_NAMES.get(subset, str(subset))
    if not annotations.segments:
        raise AnnotationError(f"{path} holds no video.", remedy="Give the full annotation file.")
    return annotations


def _segments(entry: Any, name: str, path: Path) -> list[ActionSegment]:
    try:
        return [
            ActionSegment(float(item["segment"][0]), float(item["segment"][1]), str(item["label"]))
            for item in entry["annotations"]
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{path}: the entry of video {name!r} does not fit ({type(error).__name__}: {error}).",
            remedy='Expected {"annotations": [{"segment": [start, end], "label": name}]}.',
        ) from error
