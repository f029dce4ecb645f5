"""Writing features as their readers expect them; one small file a reader, and a registry."""

from __future__ import annotations

from tspcli.exports.export import ExportReport, export_features
from tspcli.exports.export_options import ExportOptions, ExportRequest
from tspcli.exports.target import Target
from tspcli.exports.targets import TARGETS

__all__ = [
    "TARGETS",
    "ExportOptions",
    "ExportReport",
    "ExportRequest",
    "Target",
    "export_features",
]
