"""Temporal annotations: reading those of data sets, writing the tables that training reads."""

from __future__ import annotations

from tspcli.pretraining.annotations.activitynet import read_activitynet
from tspcli.pretraining.annotations.background import background_segments
from tspcli.pretraining.annotations.check import Finding, check_groundtruth
from tspcli.pretraining.annotations.convert import ConversionReport, convert
from tspcli.pretraining.annotations.groundtruth import (
    GroundTruthRow,
    read_groundtruth,
    read_label_mapping,
    write_groundtruth,
)
from tspcli.pretraining.annotations.metadata import VideoEntry, probe_folder, read_metadata
from tspcli.pretraining.annotations.model import ActionSegment, Annotations
from tspcli.pretraining.annotations.table import read_table
from tspcli.pretraining.annotations.thumos14 import read_thumos14

__all__ = [
    "ActionSegment",
    "Annotations",
    "ConversionReport",
    "Finding",
    "GroundTruthRow",
    "VideoEntry",
    "background_segments",
    "check_groundtruth",
    "convert",
    "probe_folder",
    "read_activitynet",
    "read_groundtruth",
    "read_label_mapping",
    "read_metadata",
    "read_table",
    "read_thumos14",
    "write_groundtruth",
]
