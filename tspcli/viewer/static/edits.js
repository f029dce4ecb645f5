// The segments of every video that was opened, with undo, redo and what is not saved yet.

export class Edits {
  constructor(changed) {
    this.changed = changed;
    this.version = null;
    this.current = new Map(); // video id -> segments
    this.saved = new Map();
    this.done = [];
    this.undone = [];
    this.busy = false; // while a save is under way
    this.unresolved = null; // videos whose versions somebody has to choose between
  }

  // Take what the server sent of a video, unless it is being edited here.
  open(id, segments, version) {
    this.version ??= version;
    if (!this.saved.has(id)) {
      this.saved.set(id, segments);
      this.current.set(id, segments);
    }
  }

  of(id) {
    return this.current.get(id) || [];
  }

  isChanged(id) {
    return this.current.get(id) !== this.saved.get(id);
  }

  get unsaved() {
    return [...this.current.keys()].filter((id) => this.isChanged(id));
  }

  // Segments are never changed in place: each edit makes a new list, and undo goes back to the old.
  put(id, segments) {
    if (this.busy) return;
    this.done.push({ id, before: this.of(id), after: segments });
    this.undone = [];
    this.current.set(id, segments);
    this.changed(id);
  }

  add(id, segment) {
    const segments = [...this.of(id), segment].sort((a, b) => a.start_s - b.start_s || a.end_s - b.end_s);
    this.put(id, segments);
  }

  replace(id, old, segment) {
    this.put(id, this.of(id).map((one) => (one === old ? segment : one)));
  }

  remove(id, old) {
    this.put(id, this.of(id).filter((one) => one !== old));
  }

  undo() {
    return this.move(this.done, this.undone, "before");
  }

  redo() {
    return this.move(this.undone, this.done, "after");
  }

  move(from, to, side) {
    const edit = this.busy ? null : from.pop();
    if (!edit) return null;
    to.push(edit);
    this.current.set(edit.id, edit[side]);
    this.changed(edit.id);
    return edit.id;
  }

  changes() {
    return Object.fromEntries(this.unsaved.map((id) => [id, this.of(id).map((s) => [s.start_s, s.end_s, s.label, s.entry])]));
  }

  // Everything in `segments` is on the disk now.
  settle(version, segments) {
    this.version = version;
    for (const [id, now] of Object.entries(segments)) {
      this.current.set(Number(id), now);
      this.saved.set(Number(id), now);
    }
    // Older lists name entries of a file that is no more.
    this.done = [];
    this.undone = [];
  }

  // The file has changed: keep ours as edits of theirs, entry by entry where that is still there.
  rebase(version, theirs) {
    this.version = version;
    // What is not being edited is read again when it is shown.
    for (const id of [...this.saved.keys()]) {
      if (!(id in theirs)) {
        this.saved.delete(id);
        this.current.delete(id);
      }
    }
    for (const [id, now] of Object.entries(theirs)) {
      const number = Number(id);
      const before = this.saved.get(number) || [];
      const same = (a, b) => a.start_s === b.start_s && a.end_s === b.end_s && a.label === b.label;
      const ours = this.of(number).map((segment) => {
        const origin = before.find((one) => one.entry === segment.entry && segment.entry !== null);
        const there = origin && now.find((one) => same(one, origin));
        return { ...segment, entry: there ? there.entry : null };
      });
      this.saved.set(number, now);
      this.current.set(number, ours);
    }
    this.done = [];
    this.undone = [];
  }

  take(id) {
    this.current.set(id, this.saved.get(id));
    this.changed(id);
  }
}
