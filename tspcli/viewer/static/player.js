// The picture: the browser's own player, or frames decoded by the program, on one clock.
// Times are seconds after the first frame, as everywhere in the page.

import { address, ask } from "./api.js";

const MOST_LINES = 720;

export class Player {
  constructor(changed) {
    this.changed = changed;
    this.video = document.getElementById("video");
    this.still = document.getElementById("still");
    this.nothing = document.getElementById("nothing");
    this.time = 0;
    this.playing = false;
    this.rate = 1;
    this.loop = null;
    this.exact = false;
    this.video.addEventListener("error", () => this.file && !this.exact && this.fallBack());
    this.video.addEventListener("loadedmetadata", () => {
      // Sound alone: the browser knows the container, but not the codec of the picture.
      if (!this.video.videoWidth) this.fallBack();
    });
    this.video.addEventListener("seeked", () => this.changed());
    const tick = () => {
      this.advance();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  open(id, about) {
    this.pause();
    // Nobody waits any more for frames of the video before.
    this.leaving?.abort();
    this.leaving = new AbortController();
    this.id = id;
    this.file = about.file;
    this.duration = about.seconds || 0;
    this.time = 0;
    this.frame = null;
    this.wanted = null;
    this.refused = false;
    const why = about.unreadable ? "The video file cannot be decoded." : "No video file: give --videos to see it.";
    this.nothing.textContent = this.file ? "" : why;
    this.video.removeAttribute("src");
    if (this.file) this.video.src = address(`/api/videos/${id}/file`);
    this.arrange();
    this.seek(0);
  }

  setExact(exact) {
    this.exact = exact;
    this.arrange();
    this.seek(this.time);
  }

  fallBack() {
    this.refused = true;
    this.arrange();
    this.seek(this.time);
  }

  // Whether frames come from the program rather than from the browser's player.
  get stills() {
    return this.exact || this.refused;
  }

  arrange() {
    this.video.hidden = !this.file || this.stills;
    this.still.hidden = !this.file || !this.stills;
    if (this.stills) this.video.pause();
  }

  get fps() {
    return this.file?.fps || 25;
  }

  seek(time) {
    this.time = Math.min(Math.max(0, time), Math.max(0, this.duration - 1e-3));
    if (this.file && !this.stills) this.video.currentTime = this.time + this.file.offset_s;
    if (this.file && this.stills) this.show();
    this.changed();
  }

  async show() {
    this.wanted = this.time;
    if (this.fetching) return;
    this.fetching = true;
    try {
      while (this.wanted !== null) {
        const [time, id] = [this.wanted, this.id];
        this.wanted = null;
        if (this.frame && this.frame.id === id && time >= this.frame.start && time < this.frame.end) continue;
        await this.fetch(id, time).catch((error) => id === this.id && this.missing(error));
      }
    } finally {
      this.fetching = false;
    }
  }

  async fetch(id, time) {
    const answer = await ask(`/api/videos/${id}/frame`, { time, height: MOST_LINES }, this.leaving.signal);
    const end = Number(answer.headers.get("x-end") || Infinity);
    const picture = URL.createObjectURL(await answer.blob());
    if (id !== this.id) return;
    this.frame = { id, start: Number(answer.headers.get("x-start")), end };
    URL.revokeObjectURL(this.still.src);
    this.still.src = picture;
    this.nothing.textContent = "";
  }

  missing(error) {
    this.pause();
    this.still.removeAttribute("src");
    this.nothing.textContent = error.message;
  }

  step(direction) {
    this.pause();
    if (this.stills && this.frame && this.frame.id === this.id) {
      const to = direction > 0 ? this.frame.end : this.frame.start - 0.5 / this.fps;
      if (Number.isFinite(to)) this.seek(to);
      return;
    }
    // The middle of a frame, so that rounding never shows its neighbour.
    const frame = Math.floor(this.time * this.fps + 1e-3) + direction;
    this.seek((frame + 0.5) / this.fps);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.duration && this.time >= this.duration - 0.05) this.seek(0);
    this.playing = true;
    this.last = performance.now();
    if (this.file && !this.stills) {
      this.video.playbackRate = this.rate;
      this.video.play().catch(() => this.pause());
    }
    this.changed();
  }

  pause() {
    this.playing = false;
    this.video.pause();
    this.changed();
  }

  setRate(rate) {
    this.rate = rate;
    this.video.playbackRate = rate;
  }

  advance() {
    if (!this.playing) return;
    const now = performance.now();
    const native = this.file && !this.stills;
    if (native) this.time = Math.max(0, this.video.currentTime - this.file.offset_s);
    else if (!this.fetching) this.time += ((now - this.last) / 1000) * this.rate;
    this.last = now;
    const over = native ? this.video.ended : this.time >= this.duration;
    if (this.loop && (over || this.time >= this.loop.end || this.time < this.loop.start - 0.05)) {
      this.seek(this.loop.start);
      if (native && over) this.video.play().catch(() => this.pause());
    } else if (over) this.pause();
    else if (this.file && !native) this.show();
    this.changed();
  }
}
