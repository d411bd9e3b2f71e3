// The map of a scene in its pixels, with its polygons in the style of the decisions on them.

import { addScaleBar } from "./map.js";

const L = window.L;
const SQUARE = 256;

export const toLatLngs = (outline) => outline.map((rings) => rings.map((ring) => ring.map(([x, y]) => [-y, x])));

export class ReviewMap extends EventTarget {
  constructor(model, root) {
    super();
    this.model = model;
    this.scene = -1;
    this.loaded = new Map(); // Outlines as they were mapped, by scene.
    this.polygons = new Map();
    this.busy = false; // While something is drawn, a click chooses no polygon.
    this.map = L.map(root, {
      crs: L.CRS.Simple, attributionControl: false, zoomSnap: 0.25, maxZoom: 4, doubleClickZoom: false,
      keyboard: false, renderer: L.canvas({ padding: 0.5, tolerance: 4 }),
    });
    addScaleBar(this.map, () => model.scenes[this.scene]?.gsd);
    model.addEventListener("cursor", () => this.follow());
    model.addEventListener("decisions", (event) => this.paint(event.detail[0]));
    new ResizeObserver(() => this.map.invalidateSize()).observe(root);
    if (model.current === undefined) this.open(0);
    this.follow();
  }

  open(scene) {
    this.show(scene).catch((error) =>
      this.model.dispatchEvent(new CustomEvent("problem", { detail: error.message })));
  }

  async show(scene) {
    const { name, width, height, levels, pictures, problem } = this.model.scenes[scene];
    this.scene = scene;
    this.layers?.remove();
    this.polygons.clear();
    this.shownKey = undefined;
    const bounds = [[-height, 0], [0, width]];
    this.map.setMinZoom(-levels - 1);
    let background;
    if (problem) {
      background = L.imageOverlay(`picture/${scene}?v=${pictures}`, bounds, { alt: name });
    } else {
      background = L.tileLayer("", {
        minZoom: -levels - 1, maxZoom: 4, minNativeZoom: -levels, maxNativeZoom: 0, tileSize: SQUARE, bounds,
        noWrap: true, alt: name,
      });
      background.getTileUrl = ({ x, y, z }) => `map/${scene}/${-z}/${x}/${y}?v=${pictures}`;
    }
    this.casing = L.polygon([], { color: "#111", weight: 7, fill: false, interactive: false });
    this.layers = L.layerGroup([background, this.casing]).addTo(this.map);
    this.map.fitBounds(bounds, { animate: false });
    this.dispatchEvent(new Event("scene"));
    if (!this.loaded.has(scene)) {
      const response = await fetch(`outlines/${scene}`);
      if (!response.ok) throw new Error(`The outlines of ${name} could not be loaded.`);
      this.loaded.set(scene, await response.json());
    }
    if (this.scene !== scene) return;
    for (const item of this.model.items.values()) if (item.scene === scene) this.paint(item.key);
    if (this.model.items.get(this.model.current)?.scene === scene) this.follow();
  }

  outline(key) {
    // An item's outline as it counts now; null before it is loaded.
    const { outline } = this.model.decision(key);
    return outline ?? this.loaded.get(this.model.items.get(key).scene)?.[key.split("/")[1]] ?? null;
  }

  paint(key) {
    const { model } = this;
    if (model.items.get(key).scene !== this.scene) return;
    const outline = this.outline(key);
    const isGone = model.items.get(key).origin === "drawn" && !model.decision(key).decision;
    let polygon = this.polygons.get(key);
    if (!outline || isGone) {
      polygon?.remove();
      this.polygons.delete(key);
      return;
    }
    if (!polygon) {
      polygon = L.polygon([], { bubblingMouseEvents: true }); // So that corners can be drawn on it.
      polygon.on("click", () => { if (!this.busy) model.moveTo(key); });
      this.polygons.set(key, polygon);
      this.layers.addLayer(polygon);
    }
    polygon.setLatLngs(toLatLngs(outline));
    this.style(key);
    if (key === this.shownKey) this.casing.setLatLngs(polygon.getLatLngs());
  }

  style(key) {
    const kind = this.model.kind(key);
    const isCurrent = key === this.shownKey;
    const shown = this.hidden ? 0 : 1;
    this.polygons.get(key)?.setStyle({
      color: kind.line ?? kind.tint, weight: isCurrent ? 3.5 : 2, dashArray: kind.dash, opacity: shown,
      fillOpacity: isCurrent ? 0 : 0.12 * shown,
    });
  }

  hide(hidden) {
    this.outlinesOff = hidden;
    this.setPreview(this.preview);
  }

  setPreview(preview) {
    // Outlines at another threshold take the place of those of the map.
    this.preview = preview;
    this.hidden = preview || this.outlinesOff;
    this.casing?.setStyle({ opacity: this.hidden ? 0 : 1 });
    for (const key of this.polygons.keys()) this.style(key);
  }

  follow() {
    const key = this.model.current;
    if (key === undefined) return;
    const { scene } = this.model.items.get(key);
    if (scene !== this.scene) {
      this.open(scene);
      return;
    }
    const polygon = this.polygons.get(key);
    if (!polygon || key === this.shownKey) return;
    this.mark(key);
    this.zoom();
  }

  mark(key) {
    // Shows an item as the current one, without moving the map.
    const before = this.shownKey;
    this.shownKey = key;
    if (before !== undefined) this.style(before);
    const polygon = this.polygons.get(key);
    if (!polygon) return;
    this.casing.setLatLngs(polygon.getLatLngs()).bringToFront();
    this.style(key);
    polygon.bringToFront();
  }

  zoom() {
    const polygon = this.polygons.get(this.shownKey);
    if (polygon) this.map.fitBounds(polygon.getBounds().pad(0.6), { animate: false, maxZoom: 1 });
  }
}
