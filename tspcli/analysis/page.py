"""The picture as one self-contained HTML page: no network, no libraries.

``page.html`` is the page; its script draws what ``{{DATA}}`` is replaced by.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.analysis.plot_data import FeatureView, PlotData, png_data_uri, segment_colors, shrink
from tspcli.core.files import replacing

_THUMBNAIL_PIXELS = 90


def write_page(data: PlotData, path: str | Path) -> None:
    """Write the page, in full or not at all. Needs nothing but numpy.

    Args:
        data: What to show.
        path: The ``.html`` file.
    """
    with replacing(path) as aside:
        aside.write_text(page(data), encoding="utf-8")


def page(data: PlotData) -> str:
    """The page as text."""
    # "</" inside JSON would end the script element; names may contain anything.
    payload = json.dumps(_payload(data), ensure_ascii=True).replace("<", "\\u003c")
    # Not every name is valid Unicode.
    title = html.escape(data.key).encode("utf-8", "replace").decode()
    parts = {"{{TITLE}}": title, "{{DATA}}": payload}
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # In one pass, because a name may look like a place to fill in.
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], template)


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
