"""Features written as their readers expect them: one small file per reader, and a table of them.

Names are imported when they are used: help pages read the table of targets and need no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.core.lazy_face import lazy_face

if TYPE_CHECKING:
    from tspcli.exports.export import ExportReport as ExportReport
    from tspcli.exports.export import export_features as export_features
    from tspcli.exports.export_options import ExportOptions as ExportOptions
    from tspcli.exports.export_options import ExportRequest as ExportRequest
    from tspcli.exports.target import Target as Target
    from tspcli.exports.targets import TARGETS as TARGETS

_MODULES = {
    "ExportOptions": "export_options",
    "ExportReport": "export",
    "ExportRequest": "export_options",
    "TARGETS": "targets",
    "Target": "target",
    "export_features": "export",
}
__all__ = sorted(_MODULES)

__getattr__, __dir__ = lazy_face(__name__, _MODULES)
