// Sliders that show the outlines of a scene at other thresholds or another gate, and the command to map so.

import { $, problem } from "./elements.js";
import { toLatLngs } from "./review_map.js";
import { reason } from "./saver.js";

const L = window.L;
const PAUSE = 150; // Milliseconds after the last move of a slider.
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export class Threshold {
  constructor(model, map) {
    this.model = model;
    this.map = map;
    this.scene = -1;
    this.asked = 0;
    this.layer = L.layerGroup();
    model.addEventListener("cursor", () => this.follow());
    map.addEventListener("scene", () => this.follow());
    $("threshold").addEventListener("toggle", () => this.follow());
    $("threshold-reset").addEventListener("click", () => this.reset());
    $("copy").addEventListener("click", () => {
      navigator.clipboard?.writeText($("command").textContent.trim());
      getSelection().selectAllChildren($("command"));
    });
  }

  follow() {
    // Shows the sliders of the scene that the map shows.
    if (!$("threshold").open) {
      this.clear();
      this.scene = -1;
    } else if (this.map.scene !== this.scene) {
      this.scene = this.map.scene;
      this.reset();
    }
  }

  reset() {
    this.clear();
    const scene = this.model.scenes[this.scene];
    const hasGate = scene.gate !== null;
    $("threshold-text").textContent = `Move a slider to see the outlines at another threshold${hasGate
      ? " or gate" : ""}. A higher one maps less. ${hasGate
      ? "The gate is the score that a part of the scene must exceed to be mapped at all. " : ""}`
      + "Nothing changes until you run the command.";
    this.levels = scene.classes.map((name, i) =>
      this.slider(scene.classes.length > 1 ? `Threshold of ${name}` : "Threshold", scene.thresholds[i], 1));
    this.gate = hasGate ? this.slider("Gate", scene.gate, 0) : null;
    $("sliders").replaceChildren(...[...this.levels, this.gate].filter(Boolean).map(({ label }) => label));
  }

  // Returns a slider and a function that gives its value, which is the map's own until it is moved.
  slider(name, mapped, min) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const shown = document.createElement("output");
    const first = Math.round(100 * (mapped ?? 0.5));
    Object.assign(input, { type: "range", min, max: 99, step: 1, value: first });
    const known = mapped === null ? "" : `, mapped at ${mapped.toFixed(2)}`;
    const write = () => { shown.textContent = `${(input.value / 100).toFixed(2)}${known}`; };
    input.addEventListener("input", () => {
      write();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), PAUSE);
    });
    write();
    label.append(`${name} `, input, shown);
    return { label, value: () => (Number(input.value) === first && mapped !== null ? mapped : input.value / 100) };
  }

  clear() {
    clearTimeout(this.timer);
    this.asked += 1; // An answer that is on its way is not shown any more.
    this.layer.clearLayers().remove();
    this.map.setPreview(false);
    $("threshold-result").textContent = "";
    $("command-row").hidden = true;
  }

  async ask() {
    const number = this.asked += 1;
    const gate = this.gate && this.gate.value() !== this.model.scenes[this.scene].gate ? this.gate.value() : "";
    const levels = this.levels.map(({ value }) => value());
    try {
      const response = await fetch(`preview/${this.scene}?thresholds=${levels.join(",")}&gate=${gate}`);
      if (number !== this.asked) return;
      if (!response.ok) throw new Error(await reason(response));
      this.show(await response.json());
    } catch (error) {
      if (number === this.asked) problem(`The outlines could not be drawn: ${error.message}.`);
    }
  }

  show({ outlines, share, left_out, windows, command }) {
    const shapes = outlines.map(([, outline]) => toLatLngs(outline)).flat();
    const style = { fill: false, interactive: false };
    this.layer.clearLayers().addTo(this.map.map);
    this.layer.addLayer(L.polygon(shapes, { ...style, color: "#111", weight: 4 }));
    this.layer.addLayer(L.polygon(shapes, { ...style, color: "#fff", weight: 2, dashArray: "6 4" }));
    this.map.setPreview(true);
    const more = left_out ? `, and ${left_out.toLocaleString("en")} smaller ones that are not shown` : "";
    $("threshold-result").textContent =
      `${outlines.length.toLocaleString("en")} outlines (dashed)${more}. They cover ${percent(share)} of the scene. `
      + (windows ? `${windows[0]} of ${windows[1]} windows of the scene pass the gate. ` : "")
      + "To make this map, run the command. Decisions on polygons that stay the same are kept.";
    $("command").replaceChildren(...command.split(" ").flatMap((word) => {
      const part = document.createElement("span"); // Lines break between words, not after hyphens.
      part.textContent = word;
      return [part, " "];
    }));
    $("command-row").hidden = false;
  }
}
