// The map of a scene in its pixels, with its tiles and their answers.

const L = window.L;
const SQUARE = 256;
const DASHES = { solid: null, dashed: "7 5", dotted: "2 4" };

export class SceneMap {
  constructor(model, root) {
    this.model = model;
    this.scene = -1;
    this.map = L.map(root, {
      crs: L.CRS.Simple, attributionControl: false, preferCanvas: true, zoomSnap: 0.5, maxZoom: 3,
    });
    addScaleBar(this.map, () => model.scenes[this.scene]?.gsd);
    this.cursor = L.rectangle([[0, 0], [0, 0]], { color: "#111", weight: 4, fill: false, interactive: false });
    model.addEventListener("cursor", () => this.follow());
    model.addEventListener("layer", () => this.showLayer());
    model.addEventListener("date", () => this.squares.remove().addTo(this.map)); // redraw() fails between levels.
    model.addEventListener("chances", () => this.chances && this.tintAll());
    model.addEventListener("answers", (event) => event.detail.forEach(([number]) => this.tint(number)));
    new ResizeObserver(() => {
      this.map.invalidateSize();
      if (!this.moved) this.fit();
    }).observe(root);
    for (const name of ["wheel", "pointerdown", "keydown"]) {
      root.addEventListener(name, () => { this.moved = true; }); // The reader chose a place.
    }
    this.follow();
    if (this.scene < 0) this.show(0);
  }

  show(scene) {
    const { levels } = this.model.scenes[scene];
    this.scene = scene;
    this.layers?.remove();
    this.map.setMinZoom(-levels - 1);
    this.squares = this.squaresOf(
      scene, "image", (level, x, y) => `map/${scene}/${level}/${x}/${y}?${this.model.versionAndDate}`);
    this.rectangles = new Map();
    this.layers = L.layerGroup([this.squares]).addTo(this.map);
    this.model.tiles.forEach(([other], number) => {
      if (other !== scene) return;
      const rectangle = L.rectangle(this.box(number), { weight: 1 });
      rectangle.on("click", () => this.model.moveTo(number));
      this.rectangles.set(number, rectangle);
      this.layers.addLayer(rectangle);
      this.tint(number);
    });
    this.layers.addLayer(this.cursor);
    this.layer = null;
    this.showLayer();
    this.moved = false;
    this.fit();
  }

  fit() {
    const { width, height } = this.model.scenes[this.scene];
    this.map.fitBounds([[-height, 0], [0, width]], { animate: false });
  }

  squaresOf(scene, className, address) {
    const { width, height, levels } = this.model.scenes[scene];
    const squares = L.tileLayer("", {
      minZoom: -levels - 1, maxZoom: 3, minNativeZoom: -levels, maxNativeZoom: 0, tileSize: SQUARE,
      bounds: [[-height, 0], [0, width]], noWrap: true, alt: "",
      className,
    });
    squares.getTileUrl = ({ x, y, z }) => address(-z, x, y);
    return squares;
  }

  showLayer() {
    const { version, scenes, shown } = this.model.layer;
    const wanted = shown && scenes.includes(this.scene) ? version : "";
    if ((this.layer?.version ?? "") === wanted) return;
    this.layer?.remove();
    this.layer = null;
    if (!wanted) return this.tintAll();
    const { scene } = this;
    this.layer = this.squaresOf(
      scene, "probabilities", (level, x, y) => `map_layer/${scene}/${level}/${x}/${y}?v=${wanted}`);
    this.layer.version = wanted;
    this.layers.addLayer(this.layer.setZIndex(5));
    this.tintAll();
  }

  box(number) {
    const [scene, row, col] = this.model.tiles[number];
    const { width, height } = this.model.scenes[scene];
    const side = this.model.tile_size;
    const [right, bottom] = [Math.min((col + 1) * side, width), Math.min((row + 1) * side, height)];
    return [[-bottom, col * side], [-row * side, right]];
  }

  tint(number) {
    const kind = this.model.kind(number);
    const chance = this.chances ? Math.max(this.model.chance?.[number] ?? 0, 0) / 100 : 0;
    this.rectangles.get(number)?.setStyle(kind
      ? { color: kind.tint, weight: 2, opacity: 1, dashArray: DASHES[kind.line], fillColor: kind.tint,
        fillOpacity: this.layer ? 0.1 : 0.35 }
      : { color: "#fff", weight: 1, opacity: 0.45, dashArray: null, fillColor: this.model.kinds[0].tint,
        fillOpacity: 0.7 * chance });
  }

  showChances(shown) {
    this.chances = shown;
    this.tintAll();
  }

  tintAll() {
    for (const number of this.rectangles.keys()) this.tint(number);
  }

  follow() {
    const number = this.model.current;
    if (number === undefined) return;
    const [scene] = this.model.tiles[number];
    if (scene !== this.scene) this.show(scene);
    this.cursor.setBounds(this.box(number)).bringToFront();
    const centre = this.cursor.getBounds().getCenter();
    if (!this.map.getBounds().contains(centre)) this.map.panTo(centre);
  }
}

// Shows a scale bar in metres, or in pixels where the ground resolution is unknown.
export function addScaleBar(map, resolution) {
  const control = L.control({ position: "bottomleft" });
  control.onAdd = () => {
    const box = L.DomUtil.create("div", "leaflet-control-scale");
    control.line = L.DomUtil.create("div", "leaflet-control-scale-line", box);
    return box;
  };
  control.addTo(map);
  map.on("zoomend viewreset", () => {
    const scale = 2 ** map.getZoom(); // Pixels of the screen per pixel of the scene.
    const [length, text] = niceLength(150 / scale, resolution());
    control.line.style.width = `${length * scale}px`;
    control.line.textContent = text;
  });
}

// Returns a round length of at most `pixels` pixels of the scene, in pixels, and its text.
export function niceLength(pixels, gsd) {
  const most = pixels * (gsd ?? 1);
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= most) ?? power;
  const text = !gsd ? `${length} pixels` : length >= 1000 ? `${length / 1000} km`
    : length >= 1 ? `${length} m` : `${Math.round(length * 100)} cm`;
  return [length / (gsd ?? 1), text];
}
