// The list of videos. Only the rows in sight are in the document, however many videos there are.

import { clock, counted, element, shown } from "./text.js";

const ROW = 44;

export class VideoList {
  constructor(videos, choose) {
    this.all = videos;
    this.choose = choose;
    this.current = null;
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.filter = document.getElementById("filter");
    this.sort = document.getElementById("sort");
    this.filter.addEventListener("input", () => this.arrange());
    this.sort.addEventListener("change", () => this.arrange());
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.arrange();
  }

  replace(videos) {
    this.all = videos;
    this.arrange();
  }

  arrange() {
    // An order by what no video has would be none.
    const any = (name) => name === "id" || this.all.some((video) => video[name] !== null && video[name] !== 0);
    for (const option of this.sort.options) option.hidden = !any(option.value);
    const words = this.filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.all.filter((v) => words.every((w) => v.name.toLowerCase().includes(w)));
    const by = this.sort.value;
    const order = {
      id: (a, b) => a.id - b.id,
      name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
      worst: (a, b) => (a.worst ?? 2) - (b.worst ?? 2),
    }[by] || ((a, b) => (b[by] ?? -1) - (a[by] ?? -1));
    this.shown.sort((a, b) => order(a, b) || a.id - b.id);
    document.getElementById("count").textContent =
      this.shown.length === this.all.length ? counted(this.all.length, "video") : `${this.shown.length} of ${counted(this.all.length, "video")}`;
    this.draw();
  }

  draw() {
    this.rows.style.height = `${this.shown.length * ROW}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 4);
    const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + 4);
    this.rows.replaceChildren(...this.shown.slice(first, last).map((video, i) => this.row(video, first + i)));
  }

  row(video, place) {
    const facts = [video.seconds === null ? "…" : clock(video.seconds, 0)];
    if (video.annotated) facts.push(`${video.annotated} annotated`);
    if (video.predicted && video.missed === null) facts.push(`${video.predicted} predicted`);
    if (video.missed !== null) {
      facts.push(`${video.missed} missed, ${video.false} false, tIoU ${video.worst.toFixed(2)}`);
    }
    if (video.warnings) facts.push(`⚠ ${video.warnings}`);
    const made = element(
      "div",
      { className: "video-row", role: "option", ariaSelected: String(video.id === this.current), title: shown(video.name) },
      element("b", { textContent: shown(video.name) }),
      element("small", { textContent: facts.join(" · ") }),
    );
    made.style.top = `${place * ROW}px`;
    made.addEventListener("click", () => this.choose(video.id));
    return made;
  }

  select(id) {
    this.current = id;
    const place = this.shown.findIndex((video) => video.id === id);
    if (place >= 0) {
      const top = place * ROW;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    }
    this.draw();
  }

  // The video that many places further in the list.
  neighbour(distance) {
    const place = this.shown.findIndex((video) => video.id === this.current);
    return this.shown[Math.min(this.shown.length - 1, Math.max(0, place + distance))]?.id;
  }
}
