// Connects the parts of the page.

import { Closeup } from "./closeup.js";
import { $, option, problem } from "./elements.js";
import { Learning } from "./learning.js";
import { Making } from "./making.js";
import { SceneMap } from "./map.js";
import { Model } from "./model.js";
import { Saver, post, reason } from "./saver.js";
import { Sheet } from "./sheet.js";

function answerButtons(model, place) {
  for (const kind of model.kinds) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "answer";
    button.style.setProperty("--tint", kind.tint);
    button.append(`${kind.sign} ${kind.text} `);
    button.appendChild(document.createElement("kbd")).textContent = kind.key.toUpperCase();
    button.addEventListener("click", () => model.answer(kind.label));
    place.append(button);
  }
}

function showHelp() {
  $("help").showModal();
  $("help-close").focus();
}

function showCounts(model) {
  $("counts").replaceChildren(...model.kinds.map((kind) => {
    const item = document.createElement("span");
    const count = model.count(kind.label);
    const wanted = model.wanted[kind.label];
    item.className = "count";
    item.style.setProperty("--tint", kind.tint);
    item.append(`${kind.sign} ${kind.text} ${count}${wanted ? ` of ${wanted}` : ""}`);
    if (wanted) {
      const bar = item.appendChild(document.createElement("progress"));
      bar.max = wanted;
      bar.value = Math.min(count, wanted);
      bar.setAttribute("aria-label", `${kind.text}: ${count} of ${wanted} wanted`);
    }
    return item;
  }));
  const answered = model.label.filter(Boolean).length;
  $("tile-size").disabled = answered > 0;
  const { gsd } = model.scenes[0];
  const ground = gsd ? `, ${Number((model.tile_size * gsd).toPrecision(3))} m` : "";
  $("tile-note").textContent =
    `pixels${ground}. ${model.tiles.length} tiles, ${answered} answered.`;
  $("tile-size").title = answered ? "Take all answers back to change the size." : "";
}

function fillFilters(model) {
  const filters = [["all", "All tiles"], ["none", "Without an answer"]];
  for (const kind of model.kinds) filters.push([kind.label, `Answered ${kind.text.toLowerCase()}`]);
  if (model.disputed.size) filters.push(["disputed", "Disagreements"]);
  const chosen = model.filter;
  $("filter").replaceChildren(...filters.map(([value, text]) => option(value, text)));
  $("filter").value = chosen;
}

function fillLegend(model) {
  const kinds = [...model.kinds.map((kind) => [kind.sign, kind.text, kind.tint])];
  $("legend").replaceChildren(...kinds.map(([sign, text, tint]) => {
    const item = document.createElement("li");
    const mark = item.appendChild(document.createElement("span"));
    mark.textContent = sign;
    mark.style.setProperty("--tint", tint);
    item.append(text);
    return item;
  }));
}

function fillHelp(model) {
  const rows = [
    ["Arrow keys", "go to another tile; with Shift, select several"],
    ...model.kinds.map((kind) => [kind.key.toUpperCase(), `answer ${kind.text.toLowerCase()}`]),
    ["Z", "undo the last answer"], ["Enter", "show the tile with its surroundings, or hide them"],
    ["G", "go to the next tile without an answer"],
    ...(model.paired ? [["B", "show the image before the event, or the one after"]] : []),
    ["Page Up, Page Down, Home, End", "scroll the sheet"],
    ["Mouse", "click a tile, or drag over several, then press a key or a button"],
  ];
  $("help-keys").replaceChildren(...rows.map(([key, text]) => {
    const row = document.createElement("tr");
    row.appendChild(document.createElement("td")).appendChild(document.createElement("kbd")).textContent = key;
    row.appendChild(document.createElement("td")).textContent = text;
    return row;
  }));
}

function listenToKeys(model, sheet, closeup) {
  const steps = () => ({
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -model.columns, ArrowDown: model.columns,
    PageUp: -model.columns * sheet.rows, PageDown: model.columns * sheet.rows,
    Home: -model.order.length, End: model.order.length,
  });
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (target.matches("input, select, textarea") || target.closest("#map")) return;
    const pressed = key.toLowerCase();
    const kind = model.kinds.find((each) => each.key === pressed);
    if (key in steps()) {
      model.move(model.cursor + steps()[key], event.shiftKey);
    } else if (kind) {
      if (!event.repeat) model.answer(kind.label);
    } else if (pressed === "z") {
      if (!model.undo()) $("spoken").textContent = "There is nothing to undo.";
    } else if (pressed === "b" && model.paired) {
      if (!event.repeat) model.toggleDate();
    } else if (pressed === "g") {
      model.move(Math.max(0, model.nextUnanswered(model.cursor)));
    } else if (key === "Enter" && !target.matches("button")) {
      closeup.toggle();
    } else if (pressed === "h" || key === "?") {
      showHelp();
    } else {
      return;
    }
    event.preventDefault();
  });
}

function listenToControls(model, sheet, closeup, map) {
  $("undo").addEventListener("click", () => model.undo());
  $("look").addEventListener("click", () => closeup.toggle());
  $("date").addEventListener("click", () => model.toggleDate());
  model.addEventListener("date", () => {
    $("date").setAttribute("aria-pressed", model.before);
    $("spoken").textContent = model.before ? "Before the event" : "After the event";
  });
  $("keys").addEventListener("click", showHelp);
  const show = () => model.show($("filter").value, $("order").value || "place");
  $("filter").addEventListener("change", show);
  $("order").addEventListener("change", show);
  $("size").addEventListener("input", () => sheet.resize(Number($("size").value)));
  $("scene").replaceChildren(...model.scenes.map((scene, i) => option(i, scene.name)));
  $("scene").addEventListener("change", () => {
    const scene = Number($("scene").value);
    const first = model.tiles.findIndex(([other]) => other === scene);
    if (first < 0) map.show(scene);
    else model.moveTo(first);
  });
  $("tile-size").replaceChildren(...model.sides.map((side) => option(side, side)));
  $("tile-size").value = model.tile_size;
  $("tile-size").addEventListener("change", async () => {
    $("tile-size").disabled = true;
    const response = await post("tile_size", { tile_size: Number($("tile-size").value) });
    if (response.ok) location.reload();
    else problem(await reason(response));
  });
}

function showSaved({ problem: text, waiting }) {
  problem(text ? `${text} Not saved yet: ${waiting}.` : "");
  $("saved").textContent = waiting ? `${waiting} not saved yet` : "All answers are saved";
}

async function start() {
  const response = await fetch("state");
  if (!response.ok) throw new Error(await reason(response));
  const state = await response.json();
  const saver = new Saver(state.version);
  Object.assign(state.answers, Object.fromEntries(saver.pending));
  const model = new Model(state);
  if (model.classes.length > 1) $("question").textContent = "What does the tile show?";
  else if (model.paired) $("question").textContent = "Does the tile show a new landslide?";
  for (const name of ["date", "help-dates"]) $(name).hidden = !model.paired;
  const sheet = new Sheet(model, $("sheet"));
  const map = new SceneMap(model, $("map"));
  const closeup = new Closeup(model, $("closeup"));
  const orders = [["place", "By place"]];
  if (model.learns) orders.unshift(["next", "Suggested next"], ["chance", "Likeliest first"]);
  $("order").replaceChildren(...orders.map(([value, text]) => option(value, text)));
  for (const place of [$("answers"), $("closeup-answers")]) answerButtons(model, place);
  fillFilters(model);
  fillLegend(model);
  fillHelp(model);
  listenToKeys(model, sheet, closeup);
  listenToControls(model, sheet, closeup, map);
  saver.addEventListener("status", (event) => showSaved(event.detail));
  model.addEventListener("answers", (event) => {
    saver.add(event.detail);
    showSaved({ problem: "", waiting: saver.pending.size });
    showCounts(model);
    const [[number, label]] = event.detail;
    const kind = model.kinds.find((each) => each.label === label);
    $("spoken").textContent = event.detail.length > 1
      ? `${event.detail.length} tiles: ${kind?.text ?? "mixed"}` : `${model.name(number)}: ${kind?.text ?? "no answer"}`;
  });
  model.addEventListener("order", () => { $("filter").value = model.filter; });
  model.addEventListener("cursor", () => showPlace(model));
  showSaved({ problem: "", waiting: saver.pending.size });
  saver.flush();
  showCounts(model);
  showPlace(model);
  if (model.elsewhere) {
    problem(`${model.elsewhere} answers belong to tiles of other scenes. They are kept in ${model.output}.`);
  }
  new Learning(model, $("learning"), map);
  new Making(model, $("making"), problem);
  sheet.resize(Number($("size").value));
  $("scene-label").hidden = model.scenes.length < 2;
  $("sheet").focus({ preventScroll: true });
}

function showPlace(model) {
  if (model.current === undefined) return;
  $("scene").value = model.tiles[model.current][0];
  const selected = model.selection().length;
  $("here").textContent = model.name(model.current) + (selected > 1 ? `; ${selected} tiles selected` : "");
}

start().catch((error) => problem(`The page could not be loaded: ${error.message}. Load it again.`));
