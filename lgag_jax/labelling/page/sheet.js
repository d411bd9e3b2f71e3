// The contact sheet. Only tiles near the visible part are elements of the page.

const SPARE_ROWS = 2;
const PICTURE_SIDES = [96, 128, 192, 256, 384, 512];

export class Sheet {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.canvas = root.querySelector("#canvas");
    this.empty = root.querySelector("#empty");
    this.elements = new Map(); // By position in the order.
    this.wanted = 144; // Side of a tile in pixels of the screen, before it is stretched to fill a row.
    this.side = 144;
    this.dragging = false;
    this.lastTop = 0;
    root.addEventListener("scroll", () => this.request());
    new ResizeObserver(() => this.layout()).observe(root);
    for (const name of ["order", "answers", "chances", "layer", "date"]) model.addEventListener(name, () => this.layout());
    model.addEventListener("cursor", () => this.reveal());
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      root.addEventListener(name, () => { this.dragging = false; });
    }
  }

  resize(side) {
    this.wanted = side;
    this.layout();
    this.reveal();
  }

  layout() {
    const { model } = this;
    const columns = Math.max(1, Math.round(this.root.clientWidth / this.wanted));
    this.side = Math.max(40, Math.floor(this.root.clientWidth / columns));
    this.root.style.setProperty("--cell", `${this.side}px`);
    if (columns !== model.columns) {
      model.columns = columns;
      model.anchor = model.cursor;
    }
    this.canvas.style.height = `${Math.ceil(model.order.length / columns) * this.side}px`;
    this.empty.hidden = model.order.length > 0;
    this.empty.textContent = "No tile is left here. Choose another kind under Show.";
    this.render();
  }

  request() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      const top = this.root.scrollTop;
      this.fast = Math.abs(top - this.lastTop) > this.side;
      this.lastTop = top;
      this.render();
      clearTimeout(this.pause); // Pictures that only pass by are not loaded.
      this.pause = setTimeout(() => {
        this.fast = false;
        this.render();
      }, 120);
    });
  }

  reveal() {
    const top = Math.floor(this.model.cursor / this.model.columns) * this.side;
    const { scrollTop, clientHeight } = this.root;
    if (top < scrollTop) this.root.scrollTop = top;
    else if (top + this.side > scrollTop + clientHeight) this.root.scrollTop = top + this.side - clientHeight;
    this.render();
  }

  get rows() {
    return Math.max(1, Math.floor(this.root.clientHeight / this.side));
  }

  render() {
    const { model, side } = this;
    const first = Math.max(0, Math.floor(this.root.scrollTop / side) - SPARE_ROWS) * model.columns;
    const rows = Math.ceil(this.root.clientHeight / side) + 2 * SPARE_ROWS + 1;
    const end = Math.min(model.order.length, first + rows * model.columns);
    const selected = new Set(model.selection());
    for (const [position, element] of this.elements) {
      if (position >= first && position < end && element.number === model.order[position]) continue;
      element.querySelector("img").removeAttribute("src"); // Ends a request that nobody waits for.
      element.remove();
      this.elements.delete(position);
    }
    for (let position = first; position < end; position++) {
      if (!this.elements.has(position)) this.add(position);
      this.update(position, selected.has(position));
    }
    this.root.setAttribute("aria-activedescendant", model.order.length ? `tile-${model.current}` : "");
  }

  add(position) {
    const number = this.model.order[position];
    const element = document.createElement("div");
    element.className = "tile";
    element.setAttribute("role", "option");
    element.id = `tile-${number}`;
    element.number = number;
    const picture = element.appendChild(document.createElement("div"));
    picture.className = "picture";
    const image = picture.appendChild(document.createElement("img"));
    image.alt = "";
    image.decoding = "async"; // Scrolling does not wait for it.
    const layer = picture.appendChild(document.createElement("img"));
    layer.className = "layer";
    layer.alt = "";
    layer.decoding = "async";
    layer.hidden = true;
    for (const name of ["sign", "chance"]) {
      picture.appendChild(document.createElement("span")).className = name;
    }
    this.canvas.append(element);
    this.elements.set(position, element);
  }

  update(position, selected) {
    const { model, side } = this;
    const element = this.elements.get(position);
    const { number } = element;
    const kind = model.kind(number);
    if (element.shown !== model.versionAndDate && !this.fast) {
      element.shown = model.versionAndDate;
      const wanted = side * Math.min(devicePixelRatio, 2);
      const pixels = PICTURE_SIDES.find((each) => each >= wanted) ?? PICTURE_SIDES.at(-1);
      element.querySelector("img").src = `tile/${number}?side=${pixels}&${model.versionAndDate}`;
    }
    const layer = element.querySelector(".layer");
    const version = this.fast ? "" : model.layerOf(number);
    if (version && layer.dataset.version !== version) layer.src = `map_layer/${number}?v=${version}`;
    if (version) layer.dataset.version = version;
    if (layer.hidden !== !version) layer.hidden = !version;
    const chance = model.chance?.[number];
    const isCursor = position === model.cursor;
    // Writing what is there already would lay out and paint all tiles in each frame of scrolling.
    const state = [position, model.columns, side, model.label[number], isCursor, selected, chance].join();
    if (element.state === state) return;
    element.state = state;
    const left = (position % model.columns) * side;
    element.style.transform = `translate(${left}px, ${Math.floor(position / model.columns) * side}px)`;
    element.style.setProperty("--tint", kind?.tint ?? "transparent");
    element.dataset.line = kind?.line ?? "";
    element.dataset.label = model.label[number];
    element.classList.toggle("cursor", isCursor);
    element.setAttribute("aria-selected", selected);
    element.setAttribute("aria-label", `${model.name(number)}: ${kind?.text ?? "no answer"}`);
    element.querySelector(".sign").textContent = kind?.sign ?? "";
    const percent = element.querySelector(".chance");
    percent.hidden = !(chance >= 0);
    percent.textContent = `${chance} %`;
  }

  position(event) {
    const box = this.canvas.getBoundingClientRect();
    const col = Math.min(Math.floor((event.clientX - box.left) / this.side), this.model.columns - 1);
    const row = Math.floor((event.clientY - box.top) / this.side);
    const position = row * this.model.columns + col;
    return col >= 0 && row >= 0 && position < this.model.order.length ? position : -1;
  }

  press(event) {
    const position = this.position(event);
    if (event.button !== 0 || position < 0 || event.offsetX > this.root.clientWidth) return;
    this.dragging = event.pointerType !== "touch";
    if (this.dragging) this.root.setPointerCapture(event.pointerId);
    this.root.focus({ preventScroll: true });
    this.model.move(position, event.shiftKey);
    event.preventDefault();
  }

  drag(event) {
    const position = this.position(event);
    if (this.dragging && position >= 0 && position !== this.model.cursor) this.model.move(position, true);
  }
}
