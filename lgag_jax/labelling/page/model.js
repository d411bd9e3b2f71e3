// The tiles, their answers, which of them are shown, and which are selected.

const CLASS_TINTS = ["#b34700", "#8a2be2", "#00735a", "#a3195b", "#5b6b00", "#7a4a21"];
const MAX_UNDO = 1000;
const QUEUE_LEAST = 5; // Suggested tiles without an answer, below which others are added.
const QUEUE_FULL = 12;

export class Model extends EventTarget {
  constructor(state) {
    super();
    Object.assign(this, state);
    this.label = this.tiles.map((_, number) => state.answers[number] ?? "");
    this.disputed = new Set(state.disputed);
    this.chance = null; // Of a landslide in percent, per tile, once something has been learned.
    this.layer = { version: "", scenes: [], shown: true }; // The map of probabilities.
    this.before = false; // Whether the images before the event are shown.
    this.queue = []; // Suggested tiles, in the order in which the page asks for them.
    this.filter = "all";
    this.sorting = state.learns ? "next" : "place";
    this.order = [];
    this.cursor = 0; // A position in the order.
    this.anchor = 0; // The other corner of the selection.
    this.columns = 1;
    this.history = [];
    const several = this.classes.length > 1;
    this.kinds = [
      ...this.classes.map((name, i) => ({
        label: name, text: several ? name : "Yes", key: several ? String(i + 1) : "y",
        sign: several ? String(i + 1) : "\u2713", line: "solid", tint: CLASS_TINTS[i % CLASS_TINTS.length],
      })),
      { label: this.background, text: "No", key: "n", sign: "\u2715", line: "dashed", tint: "#0063a3" },
      { label: this.unsure, text: "Unsure", key: "u", sign: "?", line: "dotted", tint: "#6b5d00" },
    ];
    this.reorder();
    this.cursor = Math.max(0, this.nextUnanswered(-1));
    this.anchor = this.cursor;
  }

  kind(number) {
    return this.kinds.find((kind) => kind.label === this.label[number]);
  }

  toggleDate() {
    if (!this.paired) return;
    this.before = !this.before;
    this.dispatchEvent(new Event("date"));
  }

  get versionAndDate() {
    return `v=${this.pictures}${this.before ? "&before" : ""}`;
  }

  get current() {
    return this.order[this.cursor];
  }

  name(number) {
    const [scene, row, col] = this.tiles[number];
    const place = `row ${row}, column ${col}`;
    return this.scenes.length > 1 ? `${this.scenes[scene].name}, ${place}` : place;
  }

  count(label) {
    return this.label.reduce((sum, other) => sum + (other === label), 0);
  }

  selection() {
    // The rectangle of tiles between the anchor and the cursor.
    const [rows, cols] = [Math.floor, (p) => p % this.columns].map((f, i) =>
      [this.anchor, this.cursor].map((p) => (i ? f(p) : f(p / this.columns))).sort((a, b) => a - b));
    const chosen = [];
    for (let row = rows[0]; row <= rows[1]; row++) {
      for (let col = cols[0]; col <= cols[1]; col++) {
        const position = row * this.columns + col;
        if (position < this.order.length) chosen.push(position);
      }
    }
    return chosen;
  }

  reorder() {
    const shown = {
      all: () => true, none: (n) => !this.label[n], disputed: (n) => this.disputed.has(n),
    }[this.filter] ?? ((n) => this.label[n] === this.filter);
    let numbers = this.tiles.map((_, number) => number);
    if (this.sorting === "next" && ["all", "none"].includes(this.filter)) {
      numbers = this.queue;
    } else if (this.sorting === "chance" && this.chance) {
      numbers.sort((a, b) => this.chance[b] - this.chance[a] || a - b);
    }
    this.order = numbers.filter(shown);
  }

  show(filter, sorting) {
    const current = this.current;
    this.filter = filter;
    this.sorting = sorting;
    this.reorder();
    this.move(Math.max(0, this.order.indexOf(current)));
    this.dispatchEvent(new Event("order"));
  }

  move(position, extend = false) {
    this.cursor = Math.min(Math.max(position, 0), Math.max(this.order.length - 1, 0));
    if (!extend) this.anchor = this.cursor;
    this.dispatchEvent(new Event("cursor"));
  }

  moveTo(number) {
    let position = this.order.indexOf(number);
    if (position < 0) {
      this.filter = "all";
      if (this.sorting === "next" && !this.queue.includes(number)) {
        this.queue.splice(this.cursor + 1, 0, number);
      }
      this.reorder();
      position = this.order.indexOf(number);
      this.dispatchEvent(new Event("order"));
    }
    this.move(position);
  }

  suggest(numbers) {
    // Adds to the queue once few of its tiles are left, so that tiles do not move under the reader's eyes.
    const left = this.queue.filter((number) => !this.label[number]).length;
    if (left >= QUEUE_LEAST) return;
    const known = new Set(this.queue);
    const added = numbers.filter((number) => !known.has(number) && !this.label[number]);
    if (!added.length) return;
    this.queue.push(...added.slice(0, QUEUE_FULL - left));
    if (this.sorting !== "next") return;
    const stay = this.label[this.current] === "";
    this.reorder();
    this.dispatchEvent(new Event("order"));
    if (!stay) this.move(Math.max(0, this.nextUnanswered(this.cursor - 1)));
  }

  learn(chance) {
    this.chance = chance;
    this.dispatchEvent(new Event("chances"));
  }

  setLayer(changes) {
    Object.assign(this.layer, changes);
    this.dispatchEvent(new Event("layer"));
  }

  layerOf(number) {
    // The version of the map that covers a tile, "" if none is shown.
    const { version, scenes, shown } = this.layer;
    return shown && scenes.includes(this.tiles[number][0]) ? version : "";
  }

  nextUnanswered(after) {
    for (let step = 1; step <= this.order.length; step++) {
      const position = (after + step) % this.order.length;
      if (!this.label[this.order[position]]) return position;
    }
    return -1;
  }

  answer(label) {
    const positions = this.selection();
    if (!positions.length) return;
    const numbers = positions.map((position) => this.order[position]);
    this.history.push(numbers.map((number) => [number, this.label[number]]));
    if (this.history.length > MAX_UNDO) this.history.shift();
    this.set(numbers.map((number) => [number, label]));
    const last = positions.at(-1);
    if (this.refreshed()) {
      this.move(Math.min(positions[0], this.order.length - 1));
    } else {
      const next = this.nextUnanswered(last);
      this.move(next < 0 ? Math.min(last + 1, this.order.length - 1) : next);
    }
  }

  undo() {
    const answers = this.history.pop();
    if (!answers) return false;
    this.set(answers);
    this.refreshed();
    this.moveTo(answers[0][0]);
    return true;
  }

  refreshed() {
    // Tiles that no longer pass the filter leave the sheet.
    if (this.filter === "all") return false;
    this.reorder();
    this.dispatchEvent(new Event("order"));
    return true;
  }

  set(answers) {
    for (const [number, label] of answers) {
      this.label[number] = label;
      this.disputed.delete(number);
    }
    this.dispatchEvent(new CustomEvent("answers", { detail: answers }));
  }
}
