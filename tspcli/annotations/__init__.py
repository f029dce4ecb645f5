"""Temporal annotations: every dialect is read here, and written for other programs.

Knows nothing of stores and encoders. The names below are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.core.lazy_face import lazy_face

if TYPE_CHECKING:
    from tspcli.annotations.read import AnnotationOrigin as AnnotationOrigin
    from tspcli.annotations.read import AnnotationSet as AnnotationSet
    from tspcli.annotations.read import read_actions as read_actions
    from tspcli.annotations.read import read_annotations as read_annotations
    from tspcli.annotations.read import read_together as read_together
    from tspcli.annotations.segments import AMBIGUOUS as AMBIGUOUS
    from tspcli.annotations.segments import AnnotatedVideo as AnnotatedVideo
    from tspcli.annotations.segments import Annotations as Annotations
    from tspcli.annotations.segments import Segment as Segment
    from tspcli.annotations.segments import read_label_mapping as read_label_mapping
    from tspcli.annotations.segments import write_label_mapping as write_label_mapping
    from tspcli.annotations.training_tables import GroundTruthRow as GroundTruthRow
    from tspcli.annotations.training_tables import VideoEntry as VideoEntry
    from tspcli.annotations.training_tables import read_groundtruth as read_groundtruth
    from tspcli.annotations.training_tables import read_metadata as read_metadata
    from tspcli.annotations.training_tables import write_groundtruth as write_groundtruth
    from tspcli.annotations.training_tables import write_metadata as write_metadata

_MODULES = {
    "AMBIGUOUS": "segments",
    "AnnotatedVideo": "segments",
    "AnnotationOrigin": "read",
    "AnnotationSet": "read",
    "Annotations": "segments",
    "GroundTruthRow": "training_tables",
    "Segment": "segments",
    "VideoEntry": "training_tables",
    "read_actions": "read",
    "read_annotations": "read",
    "read_groundtruth": "training_tables",
    "read_label_mapping": "segments",
    "read_metadata": "training_tables",
    "read_together": "read",
    "write_groundtruth": "training_tables",
    "write_label_mapping": "segments",
    "write_metadata": "training_tables",
}
__all__ = sorted(_MODULES)

__getattr__, __dir__ = lazy_face(__name__, _MODULES)
