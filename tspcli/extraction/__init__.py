"""Extraction: plan, decode, batch, encode, commit."""

from __future__ import annotations

from tspcli.core.progress import Reporter
from tspcli.encoders.weights import DEFAULT_WEIGHTS
from tspcli.extraction.engine import Engine
from tspcli.extraction.extract_config import ExtractConfig
from tspcli.extraction.extraction_run import extract
from tspcli.extraction.row_writer import RowSink
from tspcli.extraction.run_report import ExtractReport, RunFigures, VideoResult

__all__ = [
    "DEFAULT_WEIGHTS",
    "Engine",
    "ExtractConfig",
    "ExtractReport",
    "Reporter",
    "RowSink",
    "RunFigures",
    "VideoResult",
    "extract",
]
