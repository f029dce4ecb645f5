"""The picture as one self-contained HTML page: no network, no libraries."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.features.atomic import write_aside
from tspcli.features.plots.colors import segment_colors
from tspcli.features.plots.data import FeatureView, PlotData
from tspcli.features.plots.page_template import TEMPLATE
from tspcli.features.plots.thumbnails import png_data_uri, shrink

_THUMBNAIL_PIXELS = 90


def write_page(data: PlotData, path: str | Path) -> None:
    """Write the page, whole or not at all. Needs nothing but numpy.

    Args:
        data: What to show.
        path: The ``.html`` file.
    """
    with write_aside(path) as aside:
        aside.write_text(page(data), encoding="utf-8")


def page(data: PlotData) -> str:
    """The page as text."""
    # "</" inside JSON would end the script element; names may contain anything.
    payload = json.dumps(_payload(data), ensure_ascii=True).replace("<", "\\u003c")
    # In one pass, for a name may look like a place to fill in; and not every name is valid Unicode.
    title = html.escape(data.key).encode("utf-8", "replace").decode()
    parts = {"{{TITLE}}": title, "{{DATA}}": payload}
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], TEMPLATE)


def _payload(data: PlotData) -> dict[str, Any]:
    colors = segment_colors(data)
    return {
        "key": data.key,
        "duration": data.duration_s,
        "views": [_view(view, data) for view in data.views],
        "segments": [
            {"start": s.start_s, "end": s.end_s, "label": s.label, "color": colors[s.label]}
            for s in data.segments
        ],
        "thumbnails": [
            {"time": t.time_s, "uri": png_data_uri(shrink(t.rgb, _THUMBNAIL_PIXELS))}
            for t in data.thumbnails
        ],
    }


def _view(view: FeatureView, data: PlotData) -> dict[str, Any]:
    # 16 bits a cosine: enough for three decimals of any of them.
    scaled = np.round((view.similarity.astype(np.float64) + 1) / 2 * 65535).astype("<u2")
    return {
        "title": view.title,
        "rows": view.n_rows,
        "dim": view.dim,
        "cells": len(view.similarity),
        "first": float(view.edges_s[0]),
        "end": view.end_s,
        "range": list(data.scale_of(view)),
        "most": data.largest_change(view),
        "similarity": base64.b64encode(scaled.tobytes()).decode("ascii"),
        "colors": base64.b64encode(view.colors.tobytes()).decode("ascii"),
        "change": [
            [round(float(t), 3), round(float(c), 5)]
            for t, c in zip(view.change_s, view.change, strict=True)
        ],
        "separation": view.separation,
    }
