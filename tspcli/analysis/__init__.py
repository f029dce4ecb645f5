"""One picture of a video's features: as PNG or SVG, as an HTML page, or in the terminal."""

from __future__ import annotations

from tspcli.analysis.page import write_page
from tspcli.analysis.picture import check_picture, write_picture
from tspcli.analysis.plot_data import (
    FeatureView,
    PlotData,
    Thumbnail,
    foreground_rows,
    separation,
    view_features,
)

__all__ = [
    "FeatureView",
    "PlotData",
    "Thumbnail",
    "check_picture",
    "foreground_rows",
    "separation",
    "view_features",
    "write_page",
    "write_picture",
]
