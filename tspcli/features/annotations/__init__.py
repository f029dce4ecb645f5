"""Temporal annotations in the dialects that readers of features speak: reading and writing them."""

from __future__ import annotations

from tspcli.features.annotations.model import (
    PREFIX,
    AnnotatedVideo,
    AnnotationFile,
    AnnotationSet,
    Segment,
    canonical_id,
    shared_prefix,
)
from tspcli.features.annotations.reading import read_annotations

__all__ = [
    "PREFIX",
    "AnnotatedVideo",
    "AnnotationFile",
    "AnnotationSet",
    "Segment",
    "canonical_id",
    "read_annotations",
    "shared_prefix",
]
