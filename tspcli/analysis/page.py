"""The HTML page that shows a video's features; its script draws what ``{{DATA}}`` holds.

The picture as one self-contained HTML page: no network, no libraries.
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.analysis.plot_data import FeatureView, PlotData, png_data_uri, segment_colors, shrink
from tspcli.core.files import replacing

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; script-src 'unsafe-inline';
               style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{{TITLE}}</title>
<style>
  :root { --ink: #1c1c1c; --soft: #6a6a6a; --line: #d9d9d9; --paper: #fff; --mark: #0072b2; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #ececec; --soft: #a0a0a0; --line: #444; --paper: #191919; --mark: #56b4e9; }
  }
  * { box-sizing: border-box; }
  body { margin: 0 auto; max-width: 76rem; padding: 1.2rem; background: var(--paper);
         color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
  h1 { font-size: 1.15rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
  h2 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600; }
  p { margin: .1rem 0 .6rem; color: var(--soft); }
  #views { display: grid; gap: 1.6rem;
           grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
  .view { min-width: 0; }
  .lane { position: relative; margin-bottom: 5px; width: 100%; }
  .lane canvas, .lane svg { display: block; width: 100%; }
  .colors { height: 26px; } .segments { height: 16px; background: var(--line); }
  .segments span { position: absolute; top: 0; bottom: 0; min-width: 1px; }
  .change { height: 74px; border: 1px solid var(--line); }
  .change svg { height: 72px; }
  .matrix { aspect-ratio: 1; }
  .matrix { outline: 1px solid var(--line); }
  .matrix canvas { position: absolute; image-rendering: pixelated; }
  .matrix:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
  .matrix svg { position: absolute; inset: 0; height: 100%; }
  .caption { color: var(--soft); font-size: 12px; }
  .thumbs { display: flex; align-items: flex-start; gap: 1px; }
  .thumbs img { flex: 1 1 0; min-width: 0; height: auto; }
  .cursor { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--mark);
            pointer-events: none; display: none; }
  .row { position: absolute; left: 0; right: 0; height: 1px; background: var(--mark);
         pointer-events: none; display: none; }
  .axis { display: flex; justify-content: space-between; color: var(--soft); font-size: 12px; }
  .scale { display: flex; align-items: center; gap: .5rem; color: var(--soft); font-size: 12px; }
  .scale i { flex: 0 0 9rem; height: 10px; }
  #legend { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: 13px;
            margin-bottom: .6rem; }
  #legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; }
  output { display: block; min-height: 1.5em; font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<h1 id="title"></h1>
<p>Cosine similarity of a video's clips. Point at the matrix, or use the arrow keys on it.</p>
<div id="legend"></div>
<div id="views"></div>
<script type="application/json" id="data">{{DATA}}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const make = (parent, tag, className) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  parent.appendChild(element);
  return element;
};
const seconds = t => t.toFixed(2) + " s";
const percent = t => (100 * t / data.duration) + "%";
// Twelve colours of the magma scale, dark to light, joined by straight lines.
const MAGMA = [[0,0,4],[18,13,49],[51,16,103],[90,22,126],[125,36,130],[163,48,126],[200,62,115],
               [233,85,98],[249,124,93],[254,168,115],[254,211,149],[252,253,191]];
function magma(x) {
  const at = Math.min(Math.max(x, 0), 1) * (MAGMA.length - 1);
  const low = Math.min(Math.floor(at), MAGMA.length - 2), share = at - low;
  return MAGMA[low].map((v, k) => Math.round(v + (MAGMA[low + 1][k] - v) * share));
}
document.getElementById("title").textContent = data.key;
const legend = document.getElementById("legend");
for (const label of new Set(data.segments.map(s => s.label))) {
  const item = make(legend, "span");
  make(item, "i").style.background = data.segments.find(s => s.label === label).color;
  item.append(label);
}
const marks = [];
for (const view of data.views) {
  const box = make(document.getElementById("views"), "section", "view");
  const values = new Uint16Array(bytes(view.similarity).buffer);
  const cosine = (i, j) => values[i * view.cells + j] / 65535 * 2 - 1;
  make(box, "h2").textContent = view.title;
  make(box, "p").textContent = view.rows + " clips of width " + view.dim +
    (view.separation === null ? "" :
     ", foreground and background separated by " + view.separation.toFixed(3));
  const lane = (name, caption) => {
    if (caption) make(box, "div", "caption").textContent = caption;
    return make(box, "div", "lane " + name);
  };
  if (data.thumbnails.length) {
    const thumbs = lane("thumbs");
    for (const t of data.thumbnails) {
      const image = make(thumbs, "img");
      image.src = t.uri;
      image.alt = "frame at " + seconds(t.time);
      image.title = seconds(t.time);
    }
  }
  if (data.segments.length) {
    const segments = lane("segments", "annotated actions");
    for (const s of data.segments) {
      const bar = make(segments, "span");
      bar.style.left = percent(s.start);
      bar.style.width = percent(s.end - s.start);
      bar.style.background = s.color;
      bar.title = s.label + ", " + seconds(s.start) + " to " + seconds(s.end);
    }
  }
  const strip = make(lane("colors", "PCA: what looks alike is alike"), "canvas");
  strip.width = view.cells;
  strip.height = 1;
  strip.style.height = "100%";
  strip.style.imageRendering = "pixelated";
  strip.style.marginLeft = percent(view.first);
  strip.style.width = percent(view.end - view.first);
  const colors = bytes(view.colors), stripPixels = new ImageData(view.cells, 1);
  for (let i = 0; i < view.cells; i++) {
    stripPixels.data.set([colors[3 * i], colors[3 * i + 1], colors[3 * i + 2], 255], 4 * i);
  }
  strip.getContext("2d").putImageData(stripPixels, 0, 0);
  const change = lane("change", "change from clip to clip, up to " + view.most.toFixed(3)),
        plot = document.createElementNS(SVG, "svg");
  change.appendChild(plot);
  const top = Math.max(view.most, 1e-9) * 1.05;
  plot.setAttribute("viewBox", "0 0 " + data.duration + " 1");
  plot.setAttribute("preserveAspectRatio", "none");
  for (const s of data.segments) {
    const area = document.createElementNS(SVG, "rect");
    for (const [k, v] of [["x", s.start], ["y", 0], ["width", s.end - s.start], ["height", 1],
                          ["fill", s.color], ["opacity", 0.16]]) area.setAttribute(k, v);
    plot.appendChild(area);
  }
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", view.change.map(c => c[0] + "," + (1 - c[1] / top)).join(" "));
  line.setAttribute("style", "fill:none;stroke:currentColor;stroke-width:1.2px;" +
                             "vector-effect:non-scaling-stroke");
  plot.appendChild(line);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", "Change of the features over time");
  const matrix = lane("matrix", "similarity of all clips"), canvas = make(matrix, "canvas");
  matrix.tabIndex = 0;
  matrix.setAttribute("role", "img");
  matrix.setAttribute("aria-label", "Self-similarity matrix, " + view.title);
  canvas.width = canvas.height = view.cells;
  // The matrix has the time axis of the strips above it, so that columns lie below their clips.
  for (const side of ["left", "top"]) canvas.style[side] = percent(view.first);
  for (const side of ["width", "height"]) canvas.style[side] = percent(view.end - view.first);
  const pixels = new ImageData(view.cells, view.cells);
  for (let i = 0; i < view.cells * view.cells; i++) {
    const x = (values[i] / 65535 * 2 - 1 - view.range[0]) / (view.range[1] - view.range[0]);
    pixels.data.set([...magma(x), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const overlay = document.createElementNS(SVG, "svg");
  overlay.setAttribute("viewBox", [0, 0, data.duration, data.duration].join(" "));
  overlay.setAttribute("preserveAspectRatio", "none");
  for (const s of data.segments) {
    const block = document.createElementNS(SVG, "rect");
    for (const [k, v] of [["x", s.start], ["y", s.start], ["width", s.end - s.start],
                          ["height", s.end - s.start]]) block.setAttribute(k, v);
    block.setAttribute("style", "fill:none;stroke-width:1.5px;vector-effect:non-scaling-stroke;" +
                                "stroke:" + s.color);
    overlay.appendChild(block);
  }
  matrix.appendChild(overlay);
  const axis = make(box, "div", "axis");
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    make(axis, "span").textContent = seconds(share * data.duration);
  }
  const scale = make(box, "div", "scale");
  make(scale, "span").textContent = view.range[0].toFixed(view.range[0] > 0.98 ? 4 : 2);
  make(scale, "i").style.background = "linear-gradient(to right," +
    MAGMA.map(c => "rgb(" + c + ")").join(",") + ")";
  make(scale, "span").textContent = view.range[1].toFixed(2) + " cosine";
  const output = make(box, "output");
  const row = make(matrix, "div", "row");
  marks.push({cursors: [...box.querySelectorAll(".lane")].map(l => make(l, "div", "cursor")), row});
  let at = [0, 0];
  const cellTime = i => view.first + (i + 0.5) / view.cells * (view.end - view.first);
  const show = (i, j) => {
    at = [i, j].map(k => Math.min(Math.max(k, 0), view.cells - 1));
    output.textContent = "clips at " + seconds(cellTime(at[0])) + " and " +
      seconds(cellTime(at[1])) + ": cosine " + cosine(at[0], at[1]).toFixed(3);
    for (const m of marks) point(m, cellTime(at[0]), cellTime(at[1]));
  };
  matrix.addEventListener("pointermove", event => {
    const area = matrix.getBoundingClientRect();
    const cell = share => Math.floor((share * data.duration - view.first) /
                                     (view.end - view.first) * view.cells);
    show(cell((event.clientY - area.top) / area.height),
         cell((event.clientX - area.left) / area.width));
  });
  matrix.addEventListener("keydown", event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    if (!(event.key in step)) return;
    event.preventDefault();
    show(at[0] + step[event.key][0], at[1] + step[event.key][1]);
  });
}
function point(mark, down, across) {
  for (const cursor of mark.cursors) {
    cursor.style.display = "block";
    cursor.style.left = percent(across);
  }
  mark.row.style.display = "block";
  mark.row.style.top = percent(down);
}
document.documentElement.dataset.ready = "yes";
</script>
</body>
</html>
"""


_THUMBNAIL_PIXELS = 90


def write_page(data: PlotData, path: str | Path) -> None:
    """Write the page, whole or not at all. Needs nothing but numpy.

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
