// Names and times as people read them. Everything is set as text, never as markup.

// Characters that turn the reading direction would let one name look like another.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

export function shown(text) {
  return String(text).replace(HIDDEN, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

export function clock(seconds, decimals = 3) {
  const scale = 10 ** decimals;
  const rounded = Math.round(Math.max(0, seconds) * scale) / scale;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// Seconds from "12.5", "1:02.5" or "1:01:02.5"; NaN from anything else.
export function parseClock(text) {
  if (!/^\s*(\d+:){0,2}\d+(\.\d*)?\s*$/.test(text)) return NaN;
  return text.split(":").reduce((total, part) => total * 60 + Number(part), 0);
}

export function counted(count, what) {
  return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Okabe and Ito's colours, which people with a colour vision deficiency can tell apart.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800"];
const known = new Map();

export function colorOf(label) {
  if (!known.has(label)) known.set(label, COLORS[known.size % COLORS.length]);
  return known.get(label);
}
