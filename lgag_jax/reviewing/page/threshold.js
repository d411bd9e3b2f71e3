// Sliders that show the outlines of a scene at other thresholds, and the command to map with them.

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
      navigator.clipboard?.writeText($("command").textContent);
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
    $("threshold-text").textContent = "Move the slider to see the outlines at another threshold. "
      + "A higher threshold maps less. Nothing changes until you run the command.";
    $("sliders").replaceChildren(...scene.classes.map((name, i) => {
      const level = scene.thresholds[i];
      const label = document.createElement("label");
      const slider = document.createElement("input");
      const shown = document.createElement("output");
      Object.assign(slider, { type: "range", min: 1, max: 99, step: 1, value: Math.round(100 * (level ?? 0.5)) });
      const known = level === null ? "" : `, mapped at ${level.toFixed(2)}`;
      const write = () => { shown.textContent = `${(slider.value / 100).toFixed(2)}${known}`; };
      slider.addEventListener("input", () => {
        write();
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.ask(), PAUSE);
      });
      write();
      label.append(scene.classes.length > 1 ? `${name} ` : "Threshold ", slider, shown);
      return label;
    }));
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
    const levels = [...$("sliders").querySelectorAll("input")].map(({ value }) => value / 100);
    try {
      const response = await fetch(`preview/${this.scene}?thresholds=${levels.join(",")}`);
      if (number !== this.asked) return;
      if (!response.ok) throw new Error(await reason(response));
      this.show(await response.json());
    } catch (error) {
      if (number === this.asked) problem(`The outlines could not be drawn: ${error.message}.`);
    }
  }

  show({ outlines, share, left_out, command }) {
    const shapes = outlines.map(([, outline]) => toLatLngs(outline)).flat();
    const style = { fill: false, interactive: false };
    this.layer.clearLayers().addTo(this.map.map);
    this.layer.addLayer(L.polygon(shapes, { ...style, color: "#111", weight: 4 }));
    this.layer.addLayer(L.polygon(shapes, { ...style, color: "#fff", weight: 2, dashArray: "6 4" }));
    this.map.setPreview(true);
    const more = left_out ? `, and ${left_out.toLocaleString("en")} smaller ones that are not shown` : "";
    $("threshold-result").textContent =
      `${outlines.length.toLocaleString("en")} outlines (dashed)${more}. They cover ${percent(share)} of the scene. `
      + "To map with this threshold, run the command. Decisions on polygons that stay the same are kept.";
    $("command").textContent = command;
    $("command-row").hidden = false;
  }
}
