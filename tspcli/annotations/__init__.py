"""Temporal annotations: every dialect is read here, and written for other programs."""

from __future__ import annotations

from tspcli.annotations.activitynet import read_activitynet
from tspcli.annotations.groundtruth import GroundTruthRow, read_groundtruth, write_groundtruth
from tspcli.annotations.labels import read_label_mapping, write_label_mapping
from tspcli.annotations.merging import AnnotationSet, read_together
from tspcli.annotations.metadata import VideoEntry, read_metadata, write_metadata
from tspcli.annotations.model import AMBIGUOUS, AnnotatedVideo, Annotations, Segment
from tspcli.annotations.names import pair_names
from tspcli.annotations.reading import read_actions, read_annotations
from tspcli.annotations.tables import read_table
from tspcli.annotations.thumos14 import read_thumos14

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
