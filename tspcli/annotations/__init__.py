"""Temporal annotations: every dialect is read here, and written for other programs."""

from __future__ import annotations

from tspcli.annotations.dialects.activitynet import read_activitynet
from tspcli.annotations.dialects.tables import read_table
from tspcli.annotations.dialects.thumos14 import read_thumos14
from tspcli.annotations.read import AnnotationSet, read_actions, read_annotations, read_together
from tspcli.annotations.segments import (
    AMBIGUOUS,
    AnnotatedVideo,
    Annotations,
    Segment,
    read_label_mapping,
    write_label_mapping,
)
from tspcli.annotations.training_tables import (
    GroundTruthRow,
    VideoEntry,
    read_groundtruth,
    read_metadata,
    write_groundtruth,
    write_metadata,
)
from tspcli.core.video_names import pair_names

__all__ = [
    "AMBIGUOUS",
    "AnnotatedVideo",
    "AnnotationSet",
    "Annotations",
    "GroundTruthRow",
    "Segment",
    "VideoEntry",
    "pair_names",
    "read_actions",
    "read_activitynet",
    "read_annotations",
    "read_groundtruth",
    "read_label_mapping",
    "read_metadata",
    "read_table",
    "read_thumos14",
    "read_together",
    "write_groundtruth",
    "write_label_mapping",
    "write_metadata",
]
