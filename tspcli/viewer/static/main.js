// What the page knows, and how its parts work together.

import { ApiError, askJson, send } from "./api.js";
import { Edits } from "./edits.js";
import { VideoList } from "./list.js";
import { Matrices } from "./matrix.js";
import { Player } from "./player.js";
import { clock, colorOf, counted, element, parseClock, shown } from "./text.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);

const state = {
  id: null,
  time: 0,
  duration: 0,
  series: null,
  predictions: [],
  selection: null, // {start, end} in seconds
  selected: null, // a segment
  selectedPrediction: null,
  threshold: 0,
  onlyClass: "",
  segments: () => edits.of(state.id),
};

const edits = new Edits((id) => {
  if (id === state.id && !state.segments().includes(state.selected)) state.selected = null;
  showSegments();
});

let session, list, player, timeline, matrices;
let lookFor = 0; // counts openings, so that late answers are dropped

function notice(text) {
  $("notice").textContent = text;
}

function fail(error) {
  notice(error.message);
}

async function start() {
  try {
    session = await askJson("/api/session");
    const { videos, complete } = await askJson("/api/videos");
    state.canAnnotate = session.version !== null;
    state.storeNames = session.stores.map((store) => store.name);
    state.threshold = session.threshold;
    $("stores").textContent = session.stores.map((s) => shown(s.weights ? `${s.name} (${s.weights})` : s.name)).join("  |  ");
    document.title = `${state.storeNames.map(shown).join(", ")}: tsp view`;
    edits.version = session.version;
    player = new Player(moved);
    timeline = new Timeline(state, { seek: (t) => player.seek(t), select, choose, move: moveBorder, letGo, fail });
    matrices = new Matrices(state, (t) => player.seek(t));
    list = new VideoList(videos, open);
    listen();
    showLabels(session.labels);
    const prefers = new URLSearchParams(location.hash.slice(1)).get("video");
    const first = videos.find((video) => video.name === prefers) || videos[0];
    if (first) await open(first.id);
    else notice("The store holds no video.");
    document.body.dataset.ready = "yes";
    if (!complete) refreshList();
  } catch (error) {
    fail(error);
  }
}

async function open(id, at = null) {
  if (id === state.id && at === null) return;
  if (id !== state.id) {
    const ticket = ++lookFor;
    let about;
    try {
      about = await askJson(`/api/videos/${id}`);
    } catch (error) {
      fail(error);
      return;
    }
    if (ticket !== lookFor) return;
    Object.assign(state, {
      id,
      time: 0,
      file: about.file,
      series: about.series,
      predictions: about.predictions.map((p) => ({ start_s: p[0], end_s: p[1], score: p[2], label: p[3] || "action" })),
      selection: null,
      selected: null,
      selectedPrediction: null,
      onlyClass: "",
    });
    const covered = Math.max(...about.series.filter(Boolean).map((s) => s.first_s + (s.rows - 0.5) * s.step_s), 0);
    state.duration = Math.max(about.seconds || 0, covered);
    state.topScore = Math.max(...state.predictions.map((p) => p.score), 1e-9);
    edits.open(id, about.segments.map((s) => ({ start_s: s[0], end_s: s[1], label: s[2], entry: s[3] })), about.version);
    about.seconds = state.duration;
    list.select(id);
    history.replaceState(null, "", `${location.search}#video=${encodeURIComponent(about.name)}`);
    notice([...about.warnings, about.heads || ""].filter(Boolean).map(shown).join(" · "));
    player.open(id, about);
    timeline.open();
    matrices.open();
    showClasses();
    showThreshold();
    showSegments();
    showLegend();
    askJson(`/api/videos/${id}/check`).then((sound) => {
      if (sound === false && ticket === lookFor) notice("These rows are not those that were written: their checksum differs. See tsp doctor.");
    }, fail);
    if (about.heads === null) awaitHeads(id, ticket);
  }
  if (at) {
    select(at.start, at.end);
    timeline.show(at.start, at.end);
    player.seek(at.start);
  }
}

// The encoder's heads are loaded while the first video is already on the screen.
async function awaitHeads(id, ticket) {
  for (let wait = 500; ticket === lookFor; wait = Math.min(4000, wait * 1.5)) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    const about = await askJson(`/api/videos/${id}`).catch(() => null);
    if (ticket !== lookFor || !about || about.heads === null) continue;
    state.series = about.series;
    timeline.tiles.clear();
    timeline.draw();
    showLegend();
    if (about.heads) notice(shown(about.heads));
    return;
  }
}

function moved() {
  state.time = player.time;
  $("clock").textContent = `${clock(state.time)} / ${clock(state.duration, 1)}`;
  $("play").textContent = player.playing ? "❚❚" : "▶";
  if (!state.series) return;
  if (player.playing) timeline.follow();
  else timeline.draw();
  matrices.show(timeline.start, timeline.end);
}

// --- selecting -----------------------------------------------------------------------------------

function select(start, end) {
  state.selection = end > start ? { start, end } : null;
  const prediction = state.selectedPrediction;
  if (prediction && (prediction.start_s !== start || prediction.end_s !== end)) state.selectedPrediction = null;
  if (state.selected && (state.selected.start_s !== start || state.selected.end_s !== end)) state.selected = null;
  if ($("loop").checked) player.loop = state.selection;
  fillEditor();
  timeline.draw();
}

function choose(found) {
  state.selected = found?.kind === "annotations" ? found.segment : null;
  state.selectedPrediction = found?.kind === "predictions" ? found.segment : null;
  if (found) {
    state.selection = { start: found.segment.start_s, end: found.segment.end_s };
    if ($("loop").checked) player.loop = state.selection;
  }
  showSegments();
}

function chooseSegment(segment, kind = "annotations") {
  choose({ kind, segment });
  timeline.show(segment.start_s, segment.end_s);
  player.seek(segment.start_s);
}

function mark(side) {
  const time = Math.round(state.time * 1000) / 1000;
  const span = state.selection || { start: time, end: time };
  state.selected = null;
  if (side === "in") select(time, Math.max(span.end, time + 1 / player.fps));
  else select(Math.min(span.start, time - 1 / player.fps), time);
}

// The next or previous one in order, whether it is selected or the time is between two.
function neighbour(direction, amongPredictions = false) {
  const segments = [...(amongPredictions ? timeline.kept() : state.segments())].sort((a, b) => a.start_s - b.start_s || a.end_s - b.end_s);
  const place = segments.indexOf(amongPredictions ? state.selectedPrediction : state.selected);
  const after = segments.findIndex((s) => s.start_s > state.time + 1e-6);
  const between = direction > 0 ? after : (after < 0 ? segments.length : after) - 1;
  const found = segments[place >= 0 ? place + direction : between];
  if (found) chooseSegment(found, amongPredictions ? "predictions" : "annotations");
}

// --- editing -------------------------------------------------------------------------------------

const rounded = (time) => Math.round(time * 1000) / 1000;

let grip = null; // a border while it is dragged

function moveBorder(segment, side, time, isDone) {
  if (!grip || grip.origin !== segment) grip = { origin: segment, list: edits.current.get(state.id), shown: segment };
  const moved = { ...segment, [side]: rounded(time) };
  if (moved.end_s - moved.start_s < 0.01) {
    if (isDone) letGo();
    return;
  }
  // While it moves it is only shown; one edit is made when it is let go.
  edits.current.set(state.id, grip.list.map((one) => (one === grip.origin ? moved : one)));
  state.selected = moved;
  state.selection = { start: moved.start_s, end: moved.end_s };
  if (isDone) {
    edits.current.set(state.id, grip.list);
    grip = null;
    edits.replace(state.id, segment, moved);
    state.selected = moved;
    showSegments();
  }
  player.seek(time);
}

// Nothing has changed, whatever was shown while a border was dragged.
function letGo() {
  if (!grip) return;
  edits.current.set(state.id, grip.list);
  state.selected = grip.origin;
  grip = null;
  showSegments();
}

function apply() {
  const [start, end] = [parseClock($("from").value), parseClock($("to").value)];
  const label = $("label").value.trim();
  if (!state.canAnnotate) return notice(session.read_only || "Give --annotations FILE to annotate; the file need not exist yet.");
  if (Number.isNaN(start) || Number.isNaN(end)) return notice("Times are seconds or minutes:seconds, such as 62.5 or 1:02.5.");
  if (!(start < end)) return notice("The segment has to end after it starts.");
  if (!label) {
    notice("Say which action it is.");
    return $("label").focus();
  }
  // A time that was not typed keeps all its digits.
  const old = state.selected;
  const segment = {
    start_s: old && $("from").value === clock(old.start_s) ? old.start_s : rounded(start),
    end_s: old && $("to").value === clock(old.end_s) ? old.end_s : rounded(Math.min(end, state.duration)),
    label: old && label === old.label.trim() ? old.label : label,
    entry: old?.entry ?? null,
  };
  if (state.selected) edits.replace(state.id, state.selected, segment);
  else edits.add(state.id, segment);
  showLabels([label]);
  notice("");
  choose({ kind: "annotations", segment });
  $("timeline").focus();
}

function acceptPrediction() {
  const found = state.selectedPrediction;
  if (!found) return false;
  if (!state.canAnnotate) {
    notice(session.read_only || "Give --annotations FILE to annotate.");
    return true;
  }
  const segment = { start_s: rounded(found.start_s), end_s: rounded(found.end_s), label: found.label, entry: null };
  edits.add(state.id, segment);
  choose({ kind: "annotations", segment });
  return true;
}

function remove() {
  if (!state.selected || !state.canAnnotate) return;
  const gone = state.selected;
  state.selected = null;
  edits.remove(state.id, gone);
}

function step(back) {
  const id = back ? edits.undo() : edits.redo();
  if (id !== null && id !== state.id) open(id);
}

async function save() {
  const unsaved = edits.unsaved;
  if (!unsaved.length || edits.busy) return;
  if (edits.unresolved) return showConflict(edits.unresolved);
  edits.busy = true;
  try {
    const answer = await send("/api/annotations", { version: edits.version, changes: edits.changes() });
    edits.settle(answer.version, named(answer.segments));
    notice(`Saved ${session.annotations}: ${counted(unsaved.length, "video")}.`);
    refreshList();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) return fail(error);
    edits.rebase(error.body.version, named(error.body.segments));
    edits.unresolved = unsaved;
    await readAgain();
    showConflict(unsaved);
  } finally {
    edits.busy = false;
  }
  state.selected = null;
  showSegments();
}

// The shown video's segments, if they were forgotten because the file has changed.
async function readAgain() {
  if (edits.saved.has(state.id)) return;
  const id = state.id;
  const about = await askJson(`/api/videos/${id}`).catch(() => null);
  if (about) edits.open(id, about.segments.map((s) => ({ start_s: s[0], end_s: s[1], label: s[2], entry: s[3] })), about.version);
}

function named(segments) {
  return Object.fromEntries(Object.entries(segments).map(([id, own]) => [id, own.map((s) => ({ start_s: s[0], end_s: s[1], label: s[2], entry: s[3] }))]));
}

// The facts of many videos take the program a while to read.
async function refreshList() {
  for (let wait = 1000, complete = false; !complete; wait = Math.min(8000, wait * 2)) {
    const answer = await askJson("/api/videos").catch(() => null);
    if (!answer) return;
    list.replace(answer.videos);
    complete = answer.complete;
    if (!complete) await new Promise((done) => setTimeout(done, wait));
  }
}

function showConflict(ids) {
  const line = (s) => element("div", { textContent: `${clock(s.start_s, 2)}–${clock(s.end_s, 2)} ${shown(s.label)}` });
  const rows = ids.map((id) => {
    const name = list.all.find((video) => video.id === id).name;
    const pick = element("select", { ariaLabel: `Version of ${name}` }, element("option", { value: "mine", textContent: "keep mine" }), element("option", { value: "theirs", textContent: "take the file's" }));
    pick.dataset.video = id;
    return element(
      "tr",
      {},
      element("th", { textContent: shown(name) }),
      element("td", {}, ...edits.of(id).map(line)),
      element("td", {}, ...edits.saved.get(id).map(line)),
      element("td", {}, pick),
    );
  });
  const head = element("tr", {}, ...["video", "mine", "the file's", ""].map((text) => element("th", { textContent: text })));
  $("versions").replaceChildren(element("table", {}, head, ...rows));
  $("conflict").showModal();
}

function resolve() {
  for (const pick of $("versions").querySelectorAll("select")) {
    if (pick.value === "theirs") edits.take(Number(pick.dataset.video));
  }
  edits.unresolved = null;
  $("conflict").close();
  save();
}

// --- showing -------------------------------------------------------------------------------------

function fillEditor() {
  const span = state.selection;
  $("from").value = span ? clock(span.start) : "";
  $("to").value = span ? clock(span.end) : "";
  const label = state.selected?.label ?? state.selectedPrediction?.label;
  if (label !== undefined) $("label").value = label;
  $("apply").textContent = state.selected ? "Change" : state.selectedPrediction ? "Accept (Enter)" : "Add segment";
  $("delete").disabled = !state.selected || !state.canAnnotate;
  $("apply").disabled = !state.canAnnotate;
  $("find").disabled = !span;
}

function showSegments() {
  if (state.id === null) return;
  fillEditor();
  const segments = [...state.segments()].sort((a, b) => a.start_s - b.start_s);
  $("hint").textContent = !state.canAnnotate
    ? session.read_only || "Give --annotations FILE to annotate."
    : segments.length
      ? `${counted(segments.length, "segment")}; unsaved changes in ${counted(edits.unsaved.length, "video")}.`
      : "Mark a stretch: I where it begins, O where it ends; or drag with Shift.";
  $("segments").replaceChildren(
    ...segments.map((segment) => item(segment, `${clock(segment.start_s, 2)}–${clock(segment.end_s, 2)}`, "", segment === state.selected, () => chooseSegment(segment))),
  );
  $("save").disabled = !edits.unsaved.length;
  $("save").className = edits.unsaved.length ? "urgent" : "";
  $("undo").disabled = !edits.done.length;
  $("redo").disabled = !edits.undone.length;
  timeline.draw();
}

function item(segment, times, extra, isSelected, clicked) {
  const dot = element("i");
  dot.style.background = colorOf(segment.label);
  const made = element(
    "button",
    { className: "item", type: "button", ariaSelected: String(isSelected) },
    dot,
    element("span", { textContent: shown(segment.label) }),
    element("span", { className: "num", textContent: times }),
    element("span", { className: "num", textContent: extra }),
  );
  made.addEventListener("click", clicked);
  return made;
}

function showLabels(more) {
  const known = new Set([...$("labels").children].map((option) => option.value));
  for (const label of more) if (!known.has(label)) $("labels").append(element("option", { value: label }));
}

function showThreshold() {
  const any = state.predictions.length > 0;
  $("threshold-label").hidden = !any;
  $("class-label").hidden = !any;
  if (!any) return;
  $("threshold").max = String(state.topScore);
  $("threshold").step = String(state.topScore / 1000);
  $("threshold").value = String(state.threshold);
  $("threshold-value").textContent = state.threshold.toFixed(3);
}

function showClasses() {
  const labels = [...new Set(state.predictions.map((p) => p.label))].sort();
  $("class").replaceChildren(element("option", { value: "", textContent: "every class" }), ...labels.map((label) => element("option", { value: label, textContent: shown(label) })));
}

function showLegend() {
  const names = state.series[0].classes;
  $("legend").replaceChildren(
    ...names.map((name) => {
      const dot = element("span", { textContent: "● " });
      dot.style.color = colorOf(name);
      return element("span", {}, dot, `${shown(name)}  `);
    }),
  );
}

function showPanel(name) {
  for (const tab of document.querySelectorAll(".tabs button")) {
    const on = tab.dataset.panel === name;
    tab.ariaSelected = String(on);
    $(`panel-${tab.dataset.panel}`).hidden = !on;
  }
  if (name === "matrix") matrices.show(timeline.start, timeline.end);
}

async function findSimilar() {
  const span = state.selection;
  showPanel("similar");
  if (!span) return void ($("found").textContent = "Select a stretch of the video first: I and O, a segment, or drag with Shift.");
  $("found").textContent = "Searching; the first search reads all rows.";
  $("moments").replaceChildren();
  const began = performance.now();
  try {
    const { moments, rows, resident } = await askJson(`/api/videos/${state.id}/search`, { start: span.start, end: span.end, top: 50 });
    const took = ((performance.now() - began) / 1000).toFixed(2);
    $("found").textContent = `${counted(moments.length, "moment")} like ${clock(span.start, 2)}–${clock(span.end, 2)}, of ${counted(rows, "row")} in ${took} s. Click to play.`;
    if (resident < rows) $("found").textContent += ` ${counted(rows - resident, "row")} did not fit into memory and are read at every search.`;
    $("moments").replaceChildren(
      ...moments.map((m) =>
        item({ label: m.name }, `${clock(m.start_s, 2)}–${clock(m.end_s, 2)}`, m.score.toFixed(3), false, async () => {
          await open(m.id, { start: m.start_s, end: m.end_s });
          $("loop").checked = true;
          player.loop = state.selection;
          player.play();
        }),
      ),
    );
  } catch (error) {
    $("found").textContent = error.message;
  }
}

// --- keys and buttons ----------------------------------------------------------------------------

const KEYS = [
  [" ", "Space", "play or pause", () => player.toggle()],
  ["ArrowLeft", "←", "one frame back", () => player.step(-1)],
  ["ArrowRight", "→", "one frame on", () => player.step(1)],
  ["Shift+ArrowLeft", "Shift ←", "one row back", () => stepRow(-1)],
  ["Shift+ArrowRight", "Shift →", "one row on", () => stepRow(1)],
  ["[", "[", "previous segment", () => neighbour(-1)],
  ["]", "]", "next segment", () => neighbour(1)],
  ["{", "{", "previous prediction", () => neighbour(-1, true)],
  ["}", "}", "next prediction", () => neighbour(1, true)],
  [",", ",", "slower", () => changeSpeed(-1)],
  [".", ".", "faster", () => changeSpeed(1)],
  ["l", "L", "loop the selection", () => $("loop").click()],
  ["x", "X", "exact frames", () => $("exact").click()],
  ["i", "I", "selection begins here", () => mark("in")],
  ["o", "O", "selection ends here", () => mark("out")],
  ["Enter", "Enter", "accept the prediction, or name the selection", () => acceptPrediction() || $("label").select()],
  ["Delete", "Delete", "delete the segment", remove],
  ["Escape", "Esc", "select nothing", () => { choose(null); select(0, 0); }],
  ["Ctrl+z", "Ctrl Z", "undo", () => step(true)],
  ["Ctrl+Shift+z", "Ctrl Shift Z", "redo", () => step(false)],
  ["Ctrl+s", "Ctrl S", "save", save],
  ["f", "F", "find similar moments", findSimilar],
  ["1", "1", "panel: segment", () => showPanel("segment")],
  ["2", "2", "panel: similar moments", () => showPanel("similar")],
  ["3", "3", "panel: similarity", () => showPanel("matrix")],
  ["+", "+", "zoom in", () => timeline.zoom(0.5)],
  ["-", "−", "zoom out", () => timeline.zoom(2)],
  ["0", "0", "the complete video", () => timeline.place(0, state.duration)],
  ["Home", "Home", "to the start", () => player.seek(0)],
  ["End", "End", "to the end", () => player.seek(state.duration)],
  ["j", "J", "next video", () => open(list.neighbour(1))],
  ["k", "K", "previous video", () => open(list.neighbour(-1))],
  ["/", "/", "search the list", () => $("filter").focus()],
  ["t", "T", "light or dark", switchTheme],
  ["?", "?", "this list", () => $("keys").showModal()],
];

function stepRow(direction) {
  player.pause();
  const { first_s, step_s } = state.series[0];
  const row = Math.round((state.time - first_s) / step_s) + direction;
  player.seek(first_s + row * step_s);
}

function changeSpeed(direction) {
  const speed = $("speed");
  speed.selectedIndex = Math.min(speed.options.length - 1, Math.max(0, speed.selectedIndex + direction));
  player.setRate(Number(speed.value));
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  timeline.draw();
}

function keyOf(event) {
  const held = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // The shift of "?" and "+" belongs to the character; that of letters and arrows does not.
  const shift = event.shiftKey && (key.length > 1 || held);
  return `${held ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${key}`;
}

function listen() {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.altKey) return;
    const typing = event.target.matches("input:not([type=checkbox]):not([type=range]), select");
    const name = keyOf(event);
    if (typing && event.key === "Escape") return event.target.blur();
    if (typing && !name.startsWith("Ctrl+s")) return;
    // Sliders and buttons keep their own keys.
    if (event.target.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key)) return;
    if (event.target.matches("button, input") && [" ", "Enter"].includes(name)) return;
    const found = KEYS.find(([key]) => key === name);
    if (!found || state.id === null) return;
    event.preventDefault();
    found[3]();
  });
  $("keys-list").append(...KEYS.flatMap(([, keys, meaning]) => [element("dt", { textContent: keys }), element("dd", { textContent: meaning })]));
  const clicks = {
    play: () => player.toggle(),
    back: () => player.step(-1),
    forward: () => player.step(1),
    undo: () => step(true),
    redo: () => step(false),
    save,
    theme: switchTheme,
    help: () => $("keys").showModal(),
    delete: remove,
    find: findSimilar,
    closer: () => timeline.zoom(0.5),
    wider: () => timeline.zoom(2),
    all: () => timeline.place(0, state.duration),
    resolve,
    later: () => $("conflict").close(),
  };
  for (const [id, clicked] of Object.entries(clicks)) $(id).addEventListener("click", clicked);
  $("editor").addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  $("speed").addEventListener("change", () => player.setRate(Number($("speed").value)));
  $("exact").addEventListener("change", () => player.setExact($("exact").checked));
  $("loop").addEventListener("change", () => (player.loop = $("loop").checked ? state.selection : null));
  $("threshold").addEventListener("input", () => {
    state.threshold = Number($("threshold").value);
    $("threshold-value").textContent = state.threshold.toFixed(3);
    timeline.draw();
  });
  $("class").addEventListener("change", () => {
    state.onlyClass = $("class").value;
    timeline.draw();
  });
  for (const tab of document.querySelectorAll(".tabs button")) tab.addEventListener("click", () => showPanel(tab.dataset.panel));
  for (const id of ["from", "to"]) {
    $(id).addEventListener("change", () => {
      const [start, end] = [parseClock($("from").value), parseClock($("to").value)];
      if (start < end) state.selection = { start, end };
      timeline.draw();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
  window.addEventListener("beforeunload", (event) => {
    if (edits.unsaved.length) event.preventDefault();
  });
}

start();
