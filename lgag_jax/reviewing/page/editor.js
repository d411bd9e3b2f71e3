// Draws a new outline with clicks or keys, or moves the corners of one. One task at a time.

import { toLatLngs } from "./review_map.js";

const L = window.L;
const MAX_CORNERS = 300;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 10; // Pixels of the screen that an arrow key moves the cross by; 1 with Shift.
const LINE = { color: "#111", weight: 5, interactive: false };
const INNER = { color: "#fff", weight: 2.5, dashArray: "5 4", interactive: false };

export class Editor extends EventTarget {
  constructor(reviewMap) {
    super();
    this.reviewMap = reviewMap;
    this.map = reviewMap.map;
    this.task = null;
    this.map.on("click", (event) => this.add(event.latlng));
    this.map.on("dblclick", () => this.finish());
    this.map.on("mousemove", (event) => {
      if (this.task?.points) this.drawLine(event.latlng);
    });
  }

  draw(text, done) {
    this.begin({ text, done, points: [] });
    this.map.getContainer().classList.add("drawing");
    this.map.getContainer().focus();
  }

  // Acts on a key while an outline is drawn; returns whether it has a meaning there.
  press(key, isFine) {
    if (!this.task?.points || !(key in STEPS || key === " ")) return false;
    this.task.cross ??= L.marker(this.map.getCenter(), {
      interactive: false, keyboard: false, icon: L.divIcon({ className: "cross", iconSize: [25, 25] }),
    }).addTo(this.task.layers);
    const { cross } = this.task;
    if (key === " ") {
      this.add(cross.getLatLng());
    } else {
      const step = L.point(STEPS[key]).multiplyBy(isFine ? 1 : STEP);
      cross.setLatLng(this.map.containerPointToLatLng(this.map.latLngToContainerPoint(cross.getLatLng()).add(step)));
      this.map.panInside(cross.getLatLng(), { padding: [40, 40], animate: false });
    }
    this.drawLine(cross.getLatLng());
    return true;
  }

  edit(text, outline, done) {
    const rings = simplified(outline);
    this.begin({ text, done, rings });
    this.drawCorners();
    this.map.getContainer().focus(); // The first corner is next.
  }

  begin(task) {
    this.cancel();
    this.task = task;
    task.layers = L.layerGroup().addTo(this.map);
    task.casing = L.polygon([], { ...LINE, fill: false }).addTo(task.layers);
    task.line = L.polygon([], { ...INNER, fillOpacity: 0.1 }).addTo(task.layers);
    this.reviewMap.busy = true;
    this.dispatchEvent(new Event("change"));
  }

  add(latlng) {
    const points = this.task?.points;
    if (!points) return;
    const place = [latlng.lng, -latlng.lat];
    const last = points.at(-1);
    // The second click of a double click is the same corner.
    if (last && Math.hypot(last[0] - place[0], last[1] - place[1]) * 2 ** this.map.getZoom() < 4) return;
    points.push(place);
    this.drawLine();
  }

  removeLast() {
    this.task?.points?.pop();
    this.drawLine();
  }

  drawLine(mouse) {
    if (!this.task?.points) return;
    const points = mouse ? [...this.task.points, [mouse.lng, -mouse.lat]] : this.task.points;
    this.place([[points]]);
  }

  place(outline) {
    const places = toLatLngs(outline);
    this.task.casing.setLatLngs(places);
    this.task.line.setLatLngs(places);
  }

  drawCorners(focused) {
    // `focused`, a ring and the number of a corner, has the keyboard's focus afterwards.
    const { task } = this;
    task.corners?.remove();
    task.corners = L.layerGroup().addTo(task.layers);
    this.place(task.rings);
    for (const rings of task.rings) {
      for (const ring of rings) {
        ring.forEach((place, i) => {
          const marker = this.corner(ring, i, place, false);
          if (focused?.[0] === ring && focused[1] === i) marker.getElement().focus({ preventScroll: true });
          const after = ring[(i + 1) % ring.length];
          this.corner(ring, i, [(place[0] + after[0]) / 2, (place[1] + after[1]) / 2], true);
        });
      }
    }
  }

  corner(ring, i, [x, y], isBetween) {
    const side = isBetween ? 9 : 13;
    const marker = L.marker([-y, x], {
      draggable: true, keyboard: !isBetween, title: isBetween ? "Drag to add a corner" : "Drag, or press an arrow key, Insert or Delete",
      icon: L.divIcon({ className: `corner${isBetween ? " between" : ""}`, iconSize: [side, side] }),
    });
    let index = i;
    marker.on("dragstart", () => {
      if (isBetween) {
        index = i + 1;
        ring.splice(index, 0, [x, y]);
      }
    });
    marker.on("drag", ({ latlng }) => {
      ring[index] = [latlng.lng, -latlng.lat];
      this.place(this.task.rings);
    });
    marker.on("dragend", () => this.drawCorners());
    const remove = () => {
      if (isBetween || ring.length <= 3) return;
      ring.splice(i, 1);
      this.drawCorners([ring, i % ring.length]);
    };
    marker.on("contextmenu", remove);
    marker.on("keydown", ({ originalEvent }) => {
      const step = STEPS[originalEvent.key];
      if (originalEvent.key === "Delete") {
        remove();
      } else if (originalEvent.key === "Insert") {
        const after = ring[(i + 1) % ring.length];
        ring.splice(i + 1, 0, [(ring[i][0] + after[0]) / 2, (ring[i][1] + after[1]) / 2]);
        this.drawCorners([ring, i + 1]);
      } else if (step) {
        ring[i] = [ring[i][0] + step[0], ring[i][1] + step[1]];
        this.drawCorners([ring, i]);
      } else {
        return;
      }
      originalEvent.preventDefault();
      originalEvent.stopPropagation();
    });
    this.task.corners.addLayer(marker);
    return marker;
  }

  finish() {
    const { task } = this;
    if (!task) return;
    if (task.points && task.points.length < 3) return;
    const outline = task.points ? [[task.points]] : task.rings;
    this.end();
    task.done(outline);
  }

  cancel() {
    if (this.task) this.end();
  }

  end() {
    this.task.layers.remove();
    this.task = null;
    this.reviewMap.busy = false;
    this.map.getContainer().classList.remove("drawing");
    this.dispatchEvent(new Event("change"));
  }
}

// Returns a copy of an outline with few enough corners to edit. Mapped outlines follow every pixel.
function simplified(outline) {
  for (let tolerance = 1; ; tolerance *= 1.6) {
    const rings = outline.map((polygon) => polygon.map((ring) => {
      const points = [...ring, ring[0]].map(([x, y]) => L.point(x, y));
      const half = Math.floor(points.length / 2); // A closed line would collapse to its ends.
      const [first, second] = [points.slice(0, half + 1), points.slice(half)].map((part) =>
        L.LineUtil.simplify(part, tolerance));
      const few = [...first, ...second.slice(1, -1)].map(({ x, y }) => [x, y]);
      return few.length < 3 ? ring.map((place) => [...place]) : few;
    }));
    const count = rings.flat().reduce((sum, ring) => sum + ring.length, 0);
    if (count <= MAX_CORNERS || tolerance > 100) return rings;
  }
}
