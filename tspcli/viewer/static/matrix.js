// Similarity of all pairs of rows in sight, as a square linked to the playhead.

import { ask } from "./api.js";
import { element, shown } from "./text.js";

// Dark to bright, readable without colour as well.
const SHADES = [[13, 8, 60], [84, 19, 109], [159, 42, 99], [219, 81, 59], [249, 150, 30], [252, 230, 110]];

function shade(value) {
  const place = (value / 255) * (SHADES.length - 1);
  const low = Math.min(SHADES.length - 2, Math.floor(place));
  return SHADES[low].map((from, i) => from + (SHADES[low + 1][i] - from) * (place - low));
}

const TABLE = Array.from({ length: 256 }, (_, value) => shade(value));

export class Matrices {
  constructor(state, seek) {
    this.state = state;
    this.seek = seek;
    this.box = document.getElementById("matrices");
    this.squares = [];
  }

  open() {
    this.asked = null;
    this.squares = this.state.series.map((series, store) => {
      if (!series) return null;
      const canvas = element("canvas");
      const caption = element("figcaption");
      canvas.addEventListener("pointerdown", (event) => this.point(event, canvas));
      canvas.addEventListener("pointermove", (event) => event.buttons && this.point(event, canvas));
      return { store, canvas, caption, figure: element("figure", {}, caption, canvas) };
    });
    this.box.replaceChildren(...this.squares.filter(Boolean).map((square) => square.figure));
  }

  // Show the pairs of a stretch; does nothing while the panel is hidden.
  show(start, end) {
    if (!this.box.offsetParent) return;
    const name = `${this.state.id} ${start} ${end}`;
    if (this.asked !== name) {
      this.asked = name;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.fetch(start, end), 150);
    }
    this.draw();
  }

  async fetch(start, end) {
    this.stop?.abort();
    const stop = (this.stop = new AbortController());
    const id = this.state.id;
    for (const square of this.squares.filter(Boolean)) {
      try {
        const answer = await ask(`/api/videos/${id}/matrix`, { store: square.store, start, end }, stop.signal);
        const cells = Number(answer.headers.get("x-cells"));
        const values = new Uint8Array(await answer.arrayBuffer());
        if (id !== this.state.id || stop.signal.aborted) return;
        const image = new ImageData(cells, cells);
        for (let i = 0; i < values.length; i++) {
          const [red, green, blue] = TABLE[values[i]];
          image.data.set([red, green, blue, 255], 4 * i);
        }
        square.image = await createImageBitmap(image);
        square.span = [start, end];
        const low = answer.headers.get("x-low");
        square.caption.textContent = `${shown(this.state.storeNames[square.store])}: cosine ${Number(low).toFixed(2)} (dark) to 1`;
      } catch (error) {
        if (error.name !== "AbortError") square.caption.textContent = error.message;
      }
    }
    this.draw();
  }

  // Where the square lies in its canvas.
  side(canvas) {
    const size = Math.min(canvas.clientWidth, canvas.clientHeight);
    return { size, left: (canvas.clientWidth - size) / 2 };
  }

  draw() {
    for (const square of this.squares.filter(Boolean)) {
      const { canvas, image, span } = square;
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [Math.max(1, width), Math.max(1, height)];
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
      if (!image) continue;
      const { size, left } = this.side(canvas);
      context.imageSmoothingEnabled = false;
      context.drawImage(image, left, 0, size, size);
      const at = ((this.state.time - span[0]) / (span[1] - span[0])) * size;
      if (at < 0 || at > size) continue;
      context.strokeStyle = "rgba(255, 255, 255, .9)";
      context.beginPath();
      context.moveTo(left + at, 0);
      context.lineTo(left + at, size);
      context.moveTo(left, at);
      context.lineTo(left + size, at);
      context.stroke();
    }
  }

  point(event, canvas) {
    const square = this.squares.find((one) => one?.canvas === canvas);
    if (!square?.span) return;
    const { size, left } = this.side(canvas);
    const share = (event.offsetX - left) / size;
    if (share >= 0 && share <= 1) this.seek(square.span[0] + share * (square.span[1] - square.span[0]));
  }
}
