"""The tables that training reads: made out of annotations and videos, and checked."""

from __future__ import annotations

from tspcli.pretraining.annotations.background import background_segments
from tspcli.pretraining.annotations.check import Finding, check_groundtruth
from tspcli.pretraining.annotations.convert import ConversionReport, convert
from tspcli.pretraining.annotations.probing import probe_folder

__all__ = [
    "ConversionReport",
    "Finding",
    "background_segments",
    "check_groundtruth",
    "convert",
    "probe_folder",
]
