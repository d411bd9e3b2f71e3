// The polygons, what was decided on them, which of them are listed, and which one is shown.

const MAX_UNDO = 1000;
export const NONE = { decision: "", class: "", comment: "", outline: null };
export const KINDS = [
  { decision: "", text: "Undecided", sign: "", tint: "#ffe14d", dash: null },
  { decision: "accepted", text: "Accepted", sign: "\u2713", tint: "#0063a3", line: "#4db2ff", dash: null },
  { decision: "rejected", text: "Rejected", sign: "\u2715", tint: "#b34700", line: "#ff7f2a", dash: "8 6" },
  { decision: "redrawn", text: "Corrected", sign: "\u270e", tint: "#00735a", line: "#3ddbb0", dash: null },
  { decision: "missed", text: "Missed", sign: "+", tint: "#8a2be2", line: "#d7a3ff", dash: null },
  { decision: "not_landslide", text: "Not a landslide", sign: "\u2212", tint: "#6b4a00", line: "#ffb52e", dash: "2 5" },
];
export const ORDERS = [["doubt", "Doubtful first"], ["area", "Largest first"], ["number", "By number"]];
export const FILTERS = [["all", "All"], ...KINDS.map(({ decision, text }) => [decision || "none", text])];

export class Model extends EventTarget {
  constructor(state) {
    super();
    Object.assign(this, state);
    this.items = new Map(this.features.map((item) => [item.key, item]));
    this.given = new Map(Object.entries(state.decisions));
    for (const key of this.given.keys()) this.ensure(key);
    this.filter = "all";
    this.sorting = "doubt";
    this.history = [];
    this.order = [];
    this.cursor = 0;
    this.lowest = new Map(); // The least mean probability of a scene's class lies next to its threshold.
    for (const { scene, class: name, probability } of this.features) {
      const place = `${scene} ${name}`;
      if (probability !== null) {
        this.lowest.set(place, Math.min(this.lowest.get(place) ?? Infinity, probability));
      }
    }
    this.reorder();
    this.cursor = Math.max(0, this.nextUndecided(-1));
  }

  ensure(key) {
    // Adds what was drawn to the list.
    if (this.items.has(key)) return;
    const number = 1 + [...this.items.values()].filter(({ origin }) => origin === "drawn").length;
    this.items.set(key, {
      key, scene: Number(key.split("/")[0]), number, origin: "drawn", class: "", probability: null, area: null,
      pixels: null,
    });
  }

  get current() {
    return this.order[this.cursor];
  }

  decision(key) {
    return this.given.get(key) ?? NONE;
  }

  kind(key) {
    const { decision } = this.decision(key);
    return KINDS.find((kind) => kind.decision === decision);
  }

  classOf(key) {
    return this.decision(key).class || this.items.get(key).class || this.scenes[this.items.get(key).scene].classes[0];
  }

  name(key) {
    const { number, origin, scene } = this.items.get(key);
    const text = { map: `Polygon ${number}`, earlier: `Polygon ${number} of an earlier map`, drawn: `Drawing ${number}` };
    return this.scenes.length > 1 ? `${text[origin]}, ${this.scenes[scene].name}` : text[origin];
  }

  pixels(key) {
    // The size of an item in pixels of the scene, for sorting and as a text.
    const { outline } = this.decision(key);
    return outline ? outlineArea(outline) : this.items.get(key).pixels ?? 0;
  }

  area(key) {
    const { area, scene } = this.items.get(key);
    const { gsd } = this.scenes[scene];
    if (area !== null && !this.decision(key).outline) return areaText(area);
    return gsd ? areaText(this.pixels(key) * gsd * gsd) : `${Math.round(this.pixels(key)).toLocaleString("en")} px`;
  }

  doubt(key) {
    const { scene, class: name, probability, origin } = this.items.get(key);
    if (origin !== "map") return 2;
    return probability === null ? -1 : probability - (this.lowest.get(`${scene} ${name}`) ?? 0);
  }

  reorder() {
    const shown = [...this.items.keys()].filter((key) => {
      const { decision } = this.decision(key);
      const gone = this.items.get(key).origin === "drawn" && !decision;
      return !gone && (this.filter === "all" || decision === (this.filter === "none" ? "" : this.filter));
    });
    const position = new Map([...this.items.keys()].map((key, i) => [key, i]));
    const steps = (key) => Math.round(50 * this.doubt(key)); // Of two percent: then the larger comes first.
    const size = (key) => this.items.get(key).pixels ?? this.pixels(key); // A correction moves no row.
    const compare = {
      doubt: (a, b) => steps(a) - steps(b) || size(b) - size(a),
      area: (a, b) => size(b) - size(a),
      number: () => 0,
    }[this.sorting];
    this.order = shown.sort((a, b) => compare(a, b) || position.get(a) - position.get(b));
  }

  show(filter, sorting) {
    const key = this.current;
    this.filter = filter;
    this.sorting = sorting;
    this.reorder();
    this.dispatchEvent(new Event("order"));
    this.move(Math.max(0, this.order.indexOf(key)));
  }

  move(position) {
    this.cursor = Math.min(Math.max(position, 0), Math.max(this.order.length - 1, 0));
    this.dispatchEvent(new Event("cursor"));
  }

  moveTo(key) {
    if (!this.order.includes(key)) {
      this.filter = "all";
      this.reorder();
      this.dispatchEvent(new Event("order"));
    }
    this.move(Math.max(0, this.order.indexOf(key)));
  }

  nextUndecided(after) {
    for (let step = 1; step <= this.order.length; step++) {
      const position = (after + step) % this.order.length;
      if (!this.decision(this.order[position]).decision) return position;
    }
    return -1;
  }

  next() {
    const position = this.nextUndecided(this.cursor);
    this.move(position < 0 ? this.cursor + 1 : position);
  }

  decide(key, change) {
    const before = this.decision(key);
    this.ensure(key);
    this.history.push([key, before]);
    if (this.history.length > MAX_UNDO) this.history.shift();
    this.set(key, { ...before, class: this.classOf(key), ...change });
  }

  undo() {
    const last = this.history.pop();
    if (!last) return false;
    const [key, before] = last;
    this.set(key, { ...before });
    const gone = this.items.get(key).origin === "drawn" && !before.decision;
    if (!gone) this.moveTo(key);
    return true;
  }

  set(key, decision) {
    this.given.set(key, decision);
    const isDrawn = this.items.get(key).origin === "drawn";
    if (isDrawn || this.filter !== "all") {
      const old = this.current;
      this.reorder();
      const position = this.order.indexOf(old);
      this.cursor = Math.min(position < 0 ? this.cursor : position, Math.max(this.order.length - 1, 0));
      this.dispatchEvent(new Event("order"));
    }
    this.dispatchEvent(new CustomEvent("decisions", { detail: [key, decision] }));
    this.dispatchEvent(new Event("cursor"));
  }
}

// Returns an outline moved into its scene, or null if it has no area there.
export function inScene(outline, { width, height }) {
  const into = (value, most) => Math.round(100 * Math.min(Math.max(value, 0), most)) / 100;
  const moved = outline.map((rings) => rings.map((ring) => ring.map(([x, y]) => [into(x, width), into(y, height)])));
  const kept = moved.filter((rings) => outlineArea([[rings[0]]]) > 0.1);
  return kept.length ? kept : null;
}

function areaText(squareMetres) {
  const text = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  if (squareMetres >= 1e6) return `${text(squareMetres / 1e6)} km\u00b2`;
  return squareMetres >= 1e4 ? `${text(squareMetres / 1e4)} ha` : `${text(squareMetres)} m\u00b2`;
}

function outlineArea(outline) {
  const ringArea = (ring) => Math.abs(ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    return sum + x * v - u * y;
  }, 0)) / 2;
  return outline.reduce((sum, [outer, ...holes]) =>
    sum + ringArea(outer) - holes.reduce((inner, ring) => inner + ringArea(ring), 0), 0);
}
