// Connects the parts of the page.

import { Editor } from "./editor.js";
import { $, option, problem } from "./elements.js";
import { List } from "./review_list.js";
import { ReviewMap } from "./review_map.js";
import { FILTERS, inScene, KINDS, Model, ORDERS } from "./review_model.js";
import { Saver, post, reason } from "./saver.js";
import { Threshold } from "./threshold.js";

const BUTTONS = [["accepted", "Accept", "a"], ["rejected", "Reject", "r"]];
const KEYS = [
  ["A", "accept the polygon, and go to the next"], ["R", "reject it, and go to the next"],
  ["Z", "undo the last decision"], ["N", "go to the next undecided polygon"],
  ["Arrow up, down; Page Up, Page Down", "go to another polygon"],
  ["E", "move the outline's corners with the mouse, or with Tab and the arrow keys. Dragging a small point or Insert adds "
    + "one, right-click or Delete removes one"],
  ["D", "draw the outline anew"], ["C", "draw an area to cut away"], ["M", "draw a landslide that the map missed"],
  ["X", "draw an area that is not a landslide"], ["Delete", "remove a drawing"],
  ["Enter, Esc, Backspace", "while drawing: save, cancel, remove the last corner"],
  ["Arrow keys, Space", "while drawing: move the cross, also with Shift; set a corner"],
  ["T", "write a comment"], ["O", "hide or show the outlines"], ["+, \u2212, F", "zoom in, zoom out, zoom to the polygon"],
];

function newKey(scene) {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `${scene}/drawn-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

class Page {
  constructor(model, saver) {
    this.model = model;
    this.saver = saver;
    this.list = new List(model, $("list"));
    this.map = new ReviewMap(model, $("map"));
    this.editor = new Editor(this.map);
    this.threshold = new Threshold(model, this.map);
    for (const [decision, text, key] of BUTTONS) {
      const kind = KINDS.find((each) => each.decision === decision);
      const button = $("decide").appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", className: "answer", id: decision });
      button.style.setProperty("--tint", kind.tint);
      button.append(`${kind.sign} ${text} `);
      button.appendChild(document.createElement("kbd")).textContent = key.toUpperCase();
      button.addEventListener("click", () => this.decide(decision));
    }
    $("filter").replaceChildren(...FILTERS.map(([value, text]) => option(value, text)));
    $("order").replaceChildren(...ORDERS.map(([value, text]) => option(value, text)));
    const kinds = KINDS.map(({ sign, text, tint, line }) => {
      const item = document.createElement("li");
      const mark = item.appendChild(document.createElement("span"));
      mark.textContent = sign || "\u00a0";
      mark.style.setProperty("--tint", sign ? tint : line ?? tint);
      item.append(text);
      return item;
    });
    $("legend").replaceChildren(...kinds);
    $("help-keys").replaceChildren(...KEYS.map(([key, text]) => {
      const row = document.createElement("tr");
      row.appendChild(document.createElement("td")).appendChild(document.createElement("kbd")).textContent = key;
      row.appendChild(document.createElement("td")).textContent = text;
      return row;
    }));
    this.actions = {
      a: () => this.decide("accepted"), r: () => this.decide("rejected"), n: () => model.next(),
      z: () => this.undo(), e: () => this.edit(), d: () => this.redraw(), c: () => this.cut(),
      m: () => this.drawNew("missed"), x: () => this.drawNew("not_landslide"), h: () => $("help").showModal(),
      "?": () => $("help").showModal(), t: () => $("comment").focus(), o: () => $("outlines").click(),
      f: () => this.map.zoom(), "+": () => this.map.map.zoomIn(), "-": () => this.map.map.zoomOut(),
      delete: () => this.remove(), arrowup: () => model.move(model.cursor - 1),
      arrowdown: () => model.move(model.cursor + 1), pageup: () => model.move(model.cursor - this.list.page),
      pagedown: () => model.move(model.cursor + this.list.page), home: () => model.move(0),
      end: () => model.move(model.order.length - 1),
    };
    const buttons = {
      next: "n", undo: "z", keys: "h", edit: "e", redraw: "d", cut: "c", missed: "m", nothing: "x",
    };
    for (const [id, key] of Object.entries(buttons)) $(id).addEventListener("click", () => this.actions[key]());
    this.listen();
    this.showDrawing();
    this.showCounts();
    this.showCurrent();
  }

  listen() {
    const { model, editor } = this;
    $("scene").replaceChildren(...model.scenes.map(({ name }, i) => option(i, name)));
    $("scene-label").hidden = model.scenes.length < 2;
    $("scene").addEventListener("change", () => {
      const scene = Number($("scene").value);
      const first = model.order.find((key) => model.items.get(key).scene === scene);
      if (first) model.moveTo(first);
      else this.map.open(scene);
    });
    const show = () => model.show($("filter").value, $("order").value);
    $("filter").addEventListener("change", show);
    $("order").addEventListener("change", show);
    $("outlines").addEventListener("change", () => this.map.hide(!$("outlines").checked));
    $("finish").addEventListener("click", () => editor.finish());
    $("cancel").addEventListener("click", () => editor.cancel());
    editor.addEventListener("change", () => this.showDrawing());
    $("class").addEventListener("change", () => this.change({ class: $("class").value }));
    $("comment").addEventListener("change", () => this.change({ comment: $("comment").value }));
    $("comment").addEventListener("keydown", (event) => {
      if (["Enter", "Escape"].includes(event.key)) $("list").focus();
    });
    model.addEventListener("decisions", ({ detail: [key, decision] }) => {
      this.saver.add([[key, decision]]);
      this.showSaved({ problem: "", waiting: this.saver.pending.size });
      this.showCounts();
      $("spoken").textContent = `${model.name(key)}: ${model.kind(key).text}`;
    });
    model.addEventListener("order", () => { $("filter").value = model.filter; });
    model.addEventListener("cursor", () => this.showCurrent());
    model.addEventListener("problem", (event) => problem(event.detail));
    this.saver.addEventListener("status", (event) => this.showSaved(event.detail));
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (target.matches("input:not([type=checkbox]), select, textarea")) return;
    if (this.editor.task) {
      if (key === "Escape") this.editor.cancel();
      else if (key === "Enter" && !target.matches("button")) this.editor.finish();
      else if (key === "Backspace") this.editor.removeLast();
      else if (!this.editor.press(key, event.shiftKey)) return;
    } else {
      const action = this.actions[key.toLowerCase()];
      if (!action) return;
      if (!event.repeat || key.startsWith("Arrow") || key.startsWith("Page")) action();
    }
    event.preventDefault();
  }

  get isDrawn() {
    return this.model.items.get(this.model.current)?.origin === "drawn";
  }

  decide(decision) {
    const { model } = this;
    const key = model.current;
    if (key === undefined || this.editor.task) return;
    if (this.isDrawn) {
      $("spoken").textContent = "This is a drawing: remove it with Delete.";
      return;
    }
    const before = model.cursor;
    // Accepting a corrected outline confirms it.
    const confirms = decision === "accepted" && model.decision(key).decision === "redrawn";
    if (!confirms) model.decide(key, { decision, outline: null });
    if (model.order[before] === key) model.next();
    else model.move(before);
  }

  change(change) {
    // Changes the class or the comment.
    const key = this.model.current;
    if (key !== undefined) this.model.decide(key, change);
  }

  undo() {
    if (!this.model.undo()) $("spoken").textContent = "There is nothing to undo.";
  }

  remove() {
    if (this.isDrawn) this.model.decide(this.model.current, { decision: "", class: "", comment: "", outline: null });
  }

  usable(drawn, scene) {
    const outline = inScene(drawn, this.model.scenes[scene]);
    problem(outline ? "" : "This outline has no area in the scene. Draw another.");
    return outline;
  }

  corrected(key, drawn) {
    const outline = this.usable(drawn, this.model.items.get(key).scene);
    if (!outline) return;
    const { decision } = this.model.decision(key);
    const isDrawn = this.model.items.get(key).origin === "drawn";
    this.model.decide(key, { decision: isDrawn ? decision : "redrawn", outline });
  }

  edit() {
    const key = this.model.current;
    const outline = key && this.map.outline(key);
    if (!outline) return;
    this.editor.edit(
      "Drag a corner. Drag a small point to add one, right-click a corner to remove it. Or press Tab for a corner, then "
        + "an arrow key, Insert or Delete.", outline,
      (changed) => this.corrected(key, changed),
    );
  }

  redraw() {
    const key = this.model.current;
    if (!key) return;
    this.editor.draw("Click the corners of the new outline.", (outline) => this.corrected(key, outline));
  }

  cut() {
    const key = this.model.current;
    const outline = key && this.map.outline(key);
    if (!outline) return;
    const { scene } = this.model.items.get(key);
    this.editor.draw("Click the corners of the area to cut away.", async (drawn) => {
      const area = this.usable(drawn, scene);
      if (!area) return;
      try {
        const response = await post("cut", { scene, outline, area });
        if (response.ok) this.corrected(key, (await response.json()).outline);
        else problem(await reason(response));
      } catch {
        problem("The server does not respond, so nothing was cut. Start it again with the same command.");
      }
    });
  }

  drawNew(decision) {
    const texts = { missed: "Click the corners of the missed landslide.",
      not_landslide: "Click the corners of an area that is not a landslide." };
    const { scene } = this.map;
    if (scene < 0) return;
    this.editor.draw(texts[decision], (drawn) => {
      const outline = this.usable(drawn, scene);
      if (!outline) return;
      const key = newKey(scene);
      this.model.ensure(key);
      const name = this.model.items.get(this.model.current)?.scene === scene ? $("class").value : "";
      const chosen = this.model.scenes[scene].classes.includes(name) ? name : this.model.scenes[scene].classes[0];
      this.model.decide(key, { decision, outline, class: decision === "missed" ? chosen : decision, comment: "" });
      this.map.mark(key); // The view stays as it is.
      this.model.moveTo(key);
    });
  }

  showDrawing() {
    const { task } = this.editor;
    $("drawing").hidden = !task;
    if (!task && [$("map"), document.body].includes(document.activeElement)) $("list").focus({ preventScroll: true });
    $("drawing-text").textContent = task
      ? `${task.text}${task.points ? " Or move a cross with the arrow keys, and press Space. Backspace removes the last one." : ""}` : "";
  }

  showCurrent() {
    const { model } = this;
    const key = model.current;
    $("here").hidden = key === undefined;
    if (key === undefined) return;
    if (this.editor.task && this.shown !== key) this.editor.cancel();
    this.shown = key;
    const item = model.items.get(key);
    const decision = model.decision(key);
    const { classes } = model.scenes[item.scene];
    $("scene").value = item.scene;
    const parts = [model.name(key), model.area(key)];
    if (item.probability !== null) parts.push(`mean probability ${Math.round(100 * item.probability)} %`);
    $("title").textContent = parts.join(" \u00b7 ");
    const names = [...new Set([...classes, ...(item.class ? [item.class] : [])])];
    $("class").replaceChildren(...names.map((name) => option(name, name)));
    $("class").value = model.classOf(key);
    $("class-label").hidden = names.length < 2 || decision.decision === "not_landslide";
    $("comment").value = decision.comment;
    for (const [name] of BUTTONS) {
      $(name).setAttribute("aria-pressed", decision.decision === name);
      $(name).disabled = item.origin === "drawn";
    }
    const { problem: missing } = model.scenes[item.scene];
    if (missing && !this.saver.failed) problem(`${missing} The page shows the map's own picture instead.`);
  }

  showCounts() {
    const { model } = this;
    const keys = [...model.items.values()].filter(({ origin }) => origin !== "drawn").map(({ key }) => key);
    const decided = keys.filter((key) => model.decision(key).decision).length;
    const item = document.createElement("span");
    item.className = "count";
    item.style.setProperty("--tint", "#0063a3");
    item.append(`${decided} of ${keys.length} decided`);
    const bar = item.appendChild(document.createElement("progress"));
    bar.max = Math.max(keys.length, 1);
    bar.value = decided;
    bar.setAttribute("aria-label", `${decided} of ${keys.length} polygons decided`);
    const kinds = KINDS.slice(1).map((kind) => {
      const count = [...model.given.values()].filter(({ decision }) => decision === kind.decision).length;
      const element = document.createElement("span");
      element.className = "count";
      element.textContent = `${kind.sign} ${kind.text} ${count}`;
      element.hidden = !count;
      return element;
    });
    $("counts").replaceChildren(item, ...kinds);
  }

  showSaved({ problem: text, waiting }) {
    this.saver.failed = Boolean(text);
    problem(text ? `${text} Not saved yet: ${waiting}.` : "");
    $("saved").textContent = waiting ? `${waiting} not saved yet` : "All decisions are saved";
  }
}

async function start() {
  const response = await fetch("state");
  if (!response.ok) throw new Error(await reason(response));
  const state = await response.json();
  const saver = new Saver(state.version);
  Object.assign(state.decisions, Object.fromEntries(saver.pending));
  const page = new Page(new Model(state), saver);
  page.showSaved({ problem: "", waiting: saver.pending.size });
  page.showCurrent();
  saver.flush();
  $("list").focus({ preventScroll: true });
}

start().catch((error) => problem(`The page could not be loaded: ${error.message}. Load it again.`));
