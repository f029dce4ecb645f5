"""Extraction: plan, decode, batch, encode, commit."""

from __future__ import annotations

from tspcli.encoders.weights_registry import DEFAULT_WEIGHTS
from tspcli.extraction.engine import Engine
from tspcli.extraction.progress import Observer, Progress
from tspcli.extraction.report import ExtractReport, VideoResult
from tspcli.extraction.run import extract
from tspcli.extraction.settings import ExtractConfig
from tspcli.extraction.writing import RowSink

__all__ = [
    "DEFAULT_WEIGHTS",
    "Engine",
    "ExtractConfig",
    "ExtractReport",
    "Observer",
    "Progress",
    "RowSink",
    "VideoResult",
    "extract",
]
