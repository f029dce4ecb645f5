// All rows on one clock, drawn on one canvas. Points come in tiles of the level of detail that has
// about one point per pixel; until a tile is there, a coarser one is drawn in its place.

import { address, askJson } from "./api.js";
import { clock, colorOf, shown } from "./text.js";

const EDGE = 5; // pixels in which a border can be taken
const THUMB = { width: 84, height: 46 };
const MOST_TILES = 600;
const LANES = 4;

export class Timeline {
  // `on` has the functions seek, select, choose, move: what a hand on the timeline means.
  constructor(state, on) {
    this.state = state;
    this.on = on;
    this.canvas = document.getElementById("timeline");
    this.context = this.canvas.getContext("2d");
    this.tiles = new Map();
    this.pending = new Set();
    this.thumbs = new Map();
    this.hover = null;
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.listen();
  }

  open() {
    this.tiles.clear();
    this.pending.clear();
    this.stopThumbs?.abort();
    for (const picture of this.thumbs.values()) picture.src = "";
    this.thumbs.clear();
    this.start = 0;
    this.end = Math.max(1e-3, this.state.duration);
    this.resize();
    this.wantThumbs();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.max(1, Math.round(this.width * ratio));
    this.canvas.height = Math.max(1, Math.round(this.height * ratio));
    this.ratio = ratio;
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  x(time) {
    return ((time - this.start) / (this.end - this.start)) * this.width;
  }

  timeAt(x) {
    return this.start + (x / this.width) * (this.end - this.start);
  }

  zoom(factor, at = this.state.time) {
    const duration = Math.max(1e-3, this.state.duration);
    const span = Math.min(duration, Math.max(0.2, (this.end - this.start) * factor));
    const share = (at - this.start) / (this.end - this.start);
    this.place(at - span * Math.min(1, Math.max(0, share)), span);
  }

  place(start, span) {
    const duration = Math.max(1e-3, this.state.duration);
    this.start = Math.min(Math.max(0, start), Math.max(0, duration - span));
    this.end = this.start + span;
    this.draw();
    this.wantThumbs();
  }

  // Keep the playhead in sight while it moves.
  follow() {
    const span = this.end - this.start;
    if (this.state.time < this.start || this.state.time > this.end) this.place(this.state.time - span * 0.1, span);
    else this.draw();
  }

  show(start, end) {
    const span = Math.max(this.end - this.start, (end - start) * 1.5);
    if (start < this.start || end > this.end) this.place((start + end - span) / 2, span);
    else this.draw();
  }

  // --- rows of points --------------------------------------------------------------------------

  levelOf(series) {
    const rowsPerPixel = (this.end - this.start) / series.step_s / Math.max(1, this.width);
    return Math.min(series.top_level, Math.max(0, Math.floor(Math.log2(Math.max(1, rowsPerPixel)))));
  }

  // The tiles that cover what is in sight, coarser ones where the right ones are still to come.
  *inSight(store) {
    const series = this.state.series[store];
    const level = this.levelOf(series);
    const share = 2 ** level;
    const perTile = series.tile_points * share;
    const first = Math.max(0, Math.floor(((this.start - series.first_s) / series.step_s - share) / perTile));
    const last = Math.min(Math.floor((series.rows - 1) / perTile), Math.floor(((this.end - series.first_s) / series.step_s + share) / perTile));
    for (let number = first; number <= last; number++) {
      const tile = this.tile(store, level, number);
      if (tile) {
        yield tile;
        continue;
      }
      for (let up = 1; level + up <= series.top_level; up++) {
        const coarse = this.tiles.get(`${store}/${level + up}/${number >> up}`);
        if (coarse) {
          yield { ...coarse, from: number * perTile, to: (number + 1) * perTile };
          break;
        }
      }
    }
  }

  tile(store, level, number) {
    const name = `${store}/${level}/${number}`;
    const found = this.tiles.get(name);
    if (found) {
      this.tiles.delete(name);
      this.tiles.set(name, found); // the least recently used one is first
      return found;
    }
    if (!this.pending.has(name)) {
      this.pending.add(name);
      const id = this.state.id;
      askJson(`/api/videos/${id}/tile`, { store, level, tile: number })
        .then((tile) => {
          if (id !== this.state.id) return;
          tile.share = 2 ** level;
          tile.first = number * this.state.series[store].tile_points * tile.share;
          this.tiles.set(name, tile);
          if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
          this.draw();
        })
        .catch((error) => this.on.fail(error))
        .finally(() => this.pending.delete(name));
    }
    return null;
  }

  // Calls `each(x, width, index, tile)` for every point in sight.
  points(store, each) {
    const series = this.state.series[store];
    const perRow = (this.width / (this.end - this.start)) * series.step_s;
    for (const tile of this.inSight(store)) {
      const wide = perRow * tile.share;
      const count = tile.change.length;
      for (let i = 0; i < count; i++) {
        const row = tile.first + i * tile.share;
        if (tile.from !== undefined && (row + tile.share <= tile.from || row >= tile.to)) continue;
        const left = this.x(series.first_s + (row - 0.5) * series.step_s);
        if (left + wide < 0 || left > this.width) continue;
        each(left, wide, i, tile);
      }
    }
  }

  // --- painting --------------------------------------------------------------------------------

  layout() {
    const { state } = this;
    const rows = [["ruler", 20]];
    if (state.file) rows.push(["thumbs", THUMB.height]);
    if (state.canAnnotate || state.segments().length) rows.push(["annotations", 16 + 13 * this.laneCount(state.segments())]);
    if (state.predictions.length) rows.push(["predictions", 16 + 13 * this.laneCount(this.kept())]);
    if (state.series[0].classes.length) rows.push(["classes", 50]);
    if (state.series[0].region) rows.push(["foreground", 34]);
    state.series.forEach((series, store) => {
      if (!series) return;
      rows.push([`change ${store}`, 34], [`colors ${store}`, 16]);
    });
    // What does not fit is made lower, all but the ruler alike.
    const gap = 3;
    const wanted = rows.slice(1).reduce((sum, [, height]) => sum + height, 0);
    const left = this.height - rows[0][1] - gap * (rows.length - 1);
    const shrink = Math.min(1, Math.max(0.1, left / wanted));
    let top = 0;
    return rows.map(([name, full]) => {
      const height = name === "ruler" ? full : full * shrink;
      const row = { name, top, height };
      top += height + gap;
      return row;
    });
  }

  kept() {
    const { predictions, threshold, onlyClass } = this.state;
    return predictions.filter((p) => p.score >= threshold && (!onlyClass || p.label === onlyClass));
  }

  laneCount(segments) {
    return Math.min(LANES, Math.max(1, 1 + Math.max(0, ...this.lanes(segments).map((lane) => lane.lane))));
  }

  // Each segment with the first lane in which it overlaps nothing.
  lanes(segments) {
    const ends = [];
    return [...segments]
      .sort((a, b) => a.start_s - b.start_s)
      .map((segment) => {
        let lane = ends.findIndex((end) => end <= segment.start_s);
        if (lane < 0) lane = ends.length < LANES ? ends.length : LANES - 1;
        ends[lane] = Math.max(ends[lane] || 0, segment.end_s);
        return { segment, lane };
      });
  }

  paint() {
    const { context: c, state, ratio } = this;
    if (!state.series) return;
    const style = getComputedStyle(document.documentElement);
    this.ink = Object.fromEntries(["ink", "quiet", "line", "accent", "lane", "shade"].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.width, this.height);
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "middle";
    this.rows = this.layout();
    for (const row of this.rows) {
      const [name, store] = row.name.split(" ");
      if (name !== "ruler") {
        c.fillStyle = this.ink.lane;
        c.fillRect(0, row.top, this.width, row.height);
      }
      this[`paint_${name}`](row, Number(store || 0));
    }
    this.paintSelection();
    this.paintPlayhead();
  }

  caption(row, text) {
    const { context: c } = this;
    c.fillStyle = this.ink.quiet;
    c.fillText(text, 4, row.top + 7);
  }

  paint_ruler(row) {
    const { context: c } = this;
    const perLabel = ((this.end - this.start) / this.width) * 90;
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    const step = steps.find((s) => s >= perLabel) || 14400;
    c.fillStyle = this.ink.quiet;
    c.strokeStyle = this.ink.line;
    c.beginPath();
    for (let time = Math.ceil(this.start / step) * step; time <= this.end + 1e-9; time += step) {
      const x = Math.round(this.x(time)) + 0.5;
      c.moveTo(x, row.top + 13);
      c.lineTo(x, this.height);
      c.fillText(clock(time, step < 1 ? 1 : 0), x + 3, row.top + 8);
    }
    c.stroke();
  }

  paint_thumbs(row) {
    const { context: c } = this;
    for (const [time, picture] of this.thumbs) {
      if (!picture.complete || !picture.naturalWidth) continue;
      const height = row.height;
      const width = (picture.naturalWidth / picture.naturalHeight) * height;
      c.drawImage(picture, this.x(time) - width / 2, row.top, width, height);
    }
  }

  paint_annotations(row) {
    this.caption(row, this.state.canAnnotate ? "annotations" : "annotations (read only)");
    this.paintSegments(row, this.state.segments(), () => 0.85, this.state.selected);
  }

  paint_predictions(row) {
    this.caption(row, "predictions");
    this.paintSegments(row, this.kept(), (p) => 0.2 + 0.75 * Math.min(1, Math.max(0, p.score / (this.state.topScore || 1))), this.state.selectedPrediction);
  }

  paintSegments(row, segments, opacity, selected) {
    const { context: c } = this;
    const scale = (row.height - 14) / (this.laneCount(segments) * 13);
    for (const { segment, lane } of this.lanes(segments)) {
      const left = this.x(segment.start_s);
      const width = Math.max(1.5, this.x(segment.end_s) - left);
      if (left > this.width || left + width < 0) continue;
      const top = row.top + 14 + lane * 13 * scale;
      const height = 12 * scale;
      c.globalAlpha = opacity(segment);
      c.fillStyle = colorOf(segment.label);
      c.fillRect(left, top, width, height);
      c.globalAlpha = 1;
      if (segment === selected) {
        c.strokeStyle = this.ink.ink;
        c.lineWidth = 1.5;
        c.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
        c.lineWidth = 1;
      }
      if (width > 40 && height > 9) {
        c.save();
        c.beginPath();
        c.rect(Math.max(0, left), top, Math.min(this.width, left + width) - Math.max(0, left), height);
        c.clip();
        c.fillStyle = "#fff";
        c.shadowColor = "rgba(0,0,0,.75)";
        c.shadowBlur = 2;
        c.fillText(shown(segment.label), Math.max(0, left) + 4, top + height / 2 + 0.5);
        c.restore();
      }
    }
  }

  line(row, store, value, color) {
    const { context: c } = this;
    c.strokeStyle = color;
    c.lineWidth = 1.3;
    c.beginPath();
    let drawing = false;
    this.points(store, (x, wide, i, tile) => {
      const v = value(tile, i);
      if (v === null || v === undefined) {
        drawing = false;
        return;
      }
      const y = row.top + row.height - 1 - Math.min(1, v) * (row.height - 3);
      if (drawing) c.lineTo(x + wide / 2, y);
      else c.moveTo(x + wide / 2, y);
      drawing = true;
    });
    c.stroke();
    c.lineWidth = 1;
  }

  paint_classes(row) {
    this.state.series[0].classes.forEach((name, n) => this.line(row, 0, (tile, i) => tile.classes[n]?.[i], colorOf(name)));
    this.caption(row, "class probability");
  }

  paint_foreground(row) {
    this.line(row, 0, (tile, i) => tile.region?.[i], this.ink.accent);
    this.caption(row, "foreground");
  }

  paint_change(row, store) {
    let most = 1e-6;
    this.points(store, (x, wide, i, tile) => {
      most = Math.max(most, tile.change[i] || 0);
    });
    this.line(row, store, (tile, i) => (tile.change[i] === null ? null : tile.change[i] / most), this.ink.quiet);
    this.caption(row, this.named("change over time", store));
  }

  paint_colors(row, store) {
    const { context: c } = this;
    this.points(store, (x, wide, i, tile) => {
      c.fillStyle = `#${tile.colors.slice(6 * i, 6 * i + 6)}`;
      c.fillRect(x, row.top, wide + 0.6, row.height);
    });
  }

  named(what, store) {
    return this.state.series.length > 1 ? `${what}: ${shown(this.state.storeNames[store])}` : what;
  }

  paintSelection() {
    const { context: c, state } = this;
    const span = state.selection;
    if (!span) return;
    const [left, right] = [this.x(span.start), this.x(span.end)];
    c.fillStyle = this.ink.shade;
    c.fillRect(left, 20, Math.max(1, right - left), this.height - 20);
    c.strokeStyle = this.ink.accent;
    c.beginPath();
    for (const x of [left, right]) {
      c.moveTo(x, 14);
      c.lineTo(x, this.height);
    }
    c.stroke();
  }

  paintPlayhead() {
    const { context: c } = this;
    const x = this.x(this.state.time);
    c.strokeStyle = c.fillStyle = "#d0342c";
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, this.height);
    c.stroke();
    c.beginPath();
    c.moveTo(x - 5, 0);
    c.lineTo(x + 5, 0);
    c.lineTo(x, 8);
    c.fill();
  }

  // --- thumbnails ------------------------------------------------------------------------------

  wantThumbs() {
    clearTimeout(this.thumbTimer);
    if (this.state.file) this.thumbTimer = setTimeout(() => this.fetchThumbs(), 250);
  }

  async fetchThumbs() {
    this.stopThumbs?.abort();
    const stop = (this.stopThumbs = new AbortController());
    const id = this.state.id;
    const step = 2 ** Math.ceil(Math.log2(((this.end - this.start) / this.width) * THUMB.width));
    const times = [];
    for (let n = Math.floor(this.start / step); (n + 0.5) * step < this.end + step; n++) times.push((n + 0.5) * step);
    const wanted = new Set(times);
    for (const time of this.thumbs.keys()) if (!wanted.has(time)) this.thumbs.delete(time);
    for (const time of times) {
      if (time > this.state.duration || this.thumbs.has(time)) continue;
      if (stop.signal.aborted || id !== this.state.id) return;
      const picture = new Image();
      picture.src = address(`/api/videos/${id}/frame`, { time, height: 2 * THUMB.height });
      await picture.decode().catch(() => {});
      if (stop.signal.aborted || id !== this.state.id) return;
      this.thumbs.set(time, picture);
      this.draw();
    }
  }

  // --- the hand --------------------------------------------------------------------------------

  listen() {
    const { canvas } = this;
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const span = this.end - this.start;
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
          this.place(this.start + ((event.deltaX || event.deltaY) / this.width) * span, span);
        } else {
          this.zoom(1.0015 ** event.deltaY, this.timeAt(event.offsetX));
        }
      },
      { passive: false },
    );
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => {
      this.hold = null;
      this.on.letGo();
    });
  }

  rowAt(y) {
    return this.rows?.find((row) => y >= row.top && y < row.top + row.height);
  }

  // The segment under the hand, and which of its borders, if any.
  under(x, y) {
    const row = this.rowAt(y);
    if (!row || !["annotations", "predictions"].includes(row.name)) return null;
    const segments = row.name === "annotations" ? this.state.segments() : this.kept();
    const scale = (row.height - 14) / (this.laneCount(segments) * 13);
    const lane = Math.floor((y - row.top - 14) / (13 * scale));
    let best = null;
    for (const one of this.lanes(segments)) {
      if (one.lane !== lane) continue;
      const [left, right] = [this.x(one.segment.start_s), this.x(one.segment.end_s)];
      if (x < left - EDGE || x > right + EDGE) continue;
      let border = null;
      if (row.name === "annotations" && this.state.canAnnotate) {
        if (Math.abs(x - left) <= EDGE) border = "start_s";
        if (Math.abs(x - right) <= EDGE && (border === null || x > (left + right) / 2)) border = "end_s";
      }
      if (best === null || border || (x >= left && x <= right)) best = { kind: row.name, segment: one.segment, border };
    }
    return best;
  }

  press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = [event.offsetX, event.offsetY];
    const found = this.under(x, y);
    const ruler = this.rowAt(y)?.name === "ruler";
    this.hold = { x, y, time: this.timeAt(x), start: this.start, moved: false, found, shift: event.shiftKey, ruler };
    if (ruler) this.on.seek(this.hold.time);
  }

  drag(event) {
    const hold = this.hold;
    if (!hold) {
      const found = this.under(event.offsetX, event.offsetY);
      this.canvas.style.cursor = found?.border ? "ew-resize" : found ? "pointer" : "default";
      const words = found && `${shown(found.segment.label)} ${clock(found.segment.start_s)}–${clock(found.segment.end_s)}`;
      this.canvas.title = found ? (found.segment.score === undefined ? words : `${words}, score ${found.segment.score.toFixed(3)}`) : "";
      return;
    }
    hold.moved ||= Math.abs(event.offsetX - hold.x) > 3;
    if (!hold.moved) return;
    const time = Math.min(this.state.duration, Math.max(0, this.timeAt(event.offsetX)));
    if (hold.ruler) this.on.seek(time);
    else if (hold.found?.border) this.on.move(hold.found.segment, hold.found.border, time, false);
    else if (hold.shift) this.on.select(Math.min(hold.time, time), Math.max(hold.time, time));
    else {
      const span = this.end - this.start;
      this.place(hold.start - ((event.offsetX - hold.x) / this.width) * span, span);
    }
  }

  release(event) {
    const hold = this.hold;
    this.hold = null;
    if (!hold) return;
    if (hold.moved) {
      if (hold.found?.border) this.on.move(hold.found.segment, hold.found.border, Math.min(this.state.duration, Math.max(0, this.timeAt(event.offsetX))), true);
      return;
    }
    if (hold.ruler) return;
    this.on.choose(hold.found);
    this.on.seek(this.timeAt(hold.x));
  }
}
