"""Writing features as their readers expect them; one small file a reader, and a registry."""

from __future__ import annotations

from tspcli.features.exports.options import ExportOptions, ExportRequest
from tspcli.features.exports.registry import TARGETS
from tspcli.features.exports.run import ExportReport, export_features
from tspcli.features.exports.target import Target

__all__ = [
    "TARGETS",
    "ExportOptions",
    "ExportReport",
    "ExportRequest",
    "Target",
    "export_features",
]
