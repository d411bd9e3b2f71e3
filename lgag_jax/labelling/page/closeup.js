// A tile at full resolution with its surroundings and a scale bar.

import { niceLength } from "./map.js";

export class Closeup {
  constructor(model, dialog) {
    this.model = model;
    this.dialog = dialog;
    const find = (id) => dialog.querySelector(id);
    [this.title, this.image, this.layer, this.bar, this.length, this.view] =
      ["#closeup-title", "#closeup-image", "#closeup-layer", "#bar", "#length", "#view"].map(find);
    find("#closeup-close").addEventListener("click", () => dialog.close());
    for (const name of ["cursor", "answers", "layer", "date"]) model.addEventListener(name, () => this.update());
    addEventListener("resize", () => this.update());
  }

  toggle() {
    if (this.dialog.open) return this.dialog.close();
    this.dialog.showModal();
    this.dialog.querySelector("#closeup-close").focus(); // Enter closes; no answer is given by accident.
    this.update();
  }

  update() {
    const { model } = this;
    const number = model.current;
    if (!this.dialog.open || number === undefined) return;
    const { gsd } = model.scenes[model.tiles[number][0]];
    const date = model.paired ? `, ${model.before ? "before" : "after"} the event` : "";
    this.title.textContent = `${model.name(number)}${date}: ${model.kind(number)?.text ?? "no answer"}`;
    this.image.alt = `The tile of ${model.name(number)} in the middle, and the tiles around it`;
    this.image.src = `surroundings/${number}?${model.versionAndDate}`;
    const version = model.layerOf(number);
    this.layer.hidden = !version;
    if (version) this.layer.src = `map_layer/${number}?surroundings&v=${version}`;
    const perPixel = this.view.clientWidth / (3 * model.tile_size); // Of the screen, per pixel of the scene.
    const [length, text] = niceLength(this.view.clientWidth / 3 / perPixel, gsd);
    this.bar.style.width = `${length * perPixel}px`;
    this.length.textContent = text;
  }
}
