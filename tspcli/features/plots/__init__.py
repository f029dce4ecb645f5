"""One picture of a video's features: as PNG or SVG, as an HTML page, or in the terminal."""

from __future__ import annotations

from tspcli.features.plots.data import FeatureView, PlotData, Thumbnail, view_features
from tspcli.features.plots.page import write_page
from tspcli.features.plots.picture import check_picture, write_picture
from tspcli.features.plots.separation import foreground_rows, separation

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
