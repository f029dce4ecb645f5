"""The JSON of BSN and its successors: ``anet_anno_action.json``, which has no subsets.

``{"v_ID": {"duration_second": ..., "duration_frame": ..., "feature_frame": ...,
"annotations": [...]}}``, the annotations as ActivityNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tspcli.annotations.dialects.activitynet import segments_of, videos_of
from tspcli.annotations.segments import AnnotatedVideo, Annotations
from tspcli.annotations.text_files import Place, Source, count, number


def detects(source: Source) -> bool:
    """Whether the source is JSON whose first video has ``annotations``."""
    return source.is_json and "annotations" in source.first_video


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: At the first value that does not fit.
    """
    return videos_of(source, source.json, _video)


def _video(entry: Mapping[str, Any], place: Place) -> AnnotatedVideo:
    if "annotations" not in entry:
        raise place.error("there are no 'annotations'.")
    return AnnotatedVideo(
        segments_of(entry, place),
        number(entry.get("duration_second"), place.at("duration_second")),
        n_frames=count(entry.get("duration_frame"), place.at("duration_frame")),
        fps=number(entry.get("fps"), place.at("fps")),
        feature_frame=number(entry.get("feature_frame"), place.at("feature_frame")),
    )
