// The list of polygons. Only the rows in sight exist, so that thousands scroll well.

const HEIGHT = 46;

export class List {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.rows = root.querySelector("#rows");
    root.addEventListener("scroll", () => this.render());
    root.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) model.move(Number(row.dataset.position));
    });
    new ResizeObserver(() => this.render()).observe(root);
    for (const name of ["order", "decisions"]) model.addEventListener(name, () => this.render());
    model.addEventListener("cursor", () => this.follow());
    this.follow();
  }

  get page() {
    return Math.max(1, Math.floor(this.root.clientHeight / HEIGHT) - 1);
  }

  follow() {
    const top = this.model.cursor * HEIGHT;
    const { scrollTop, clientHeight } = this.root;
    if (top < scrollTop) this.root.scrollTop = top;
    else if (top + HEIGHT > scrollTop + clientHeight) this.root.scrollTop = top + HEIGHT - clientHeight;
    this.render();
  }

  render() {
    const { model } = this;
    const { scrollTop, clientHeight } = this.root;
    this.rows.style.height = `${model.order.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor(scrollTop / HEIGHT) - 3);
    const last = Math.min(model.order.length, Math.ceil((scrollTop + clientHeight) / HEIGHT) + 3);
    const shown = [];
    for (let position = first; position < last; position++) shown.push(this.row(position));
    this.rows.replaceChildren(...shown);
    document.getElementById("empty").hidden = model.order.length > 0;
    this.root.setAttribute("aria-activedescendant", `row-${model.cursor}`);
  }

  row(position) {
    const { model } = this;
    const key = model.order[position];
    const { probability } = model.items.get(key);
    const kind = model.kind(key);
    const row = document.createElement("div");
    row.className = "row";
    row.id = `row-${position}`;
    row.dataset.position = position;
    row.dataset.key = key;
    row.dataset.decision = kind.decision;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", position === model.cursor);
    row.style.top = `${position * HEIGHT}px`;
    row.style.setProperty("--tint", kind.tint);
    const add = (place, name, text) => {
      const element = place.appendChild(document.createElement(name));
      element.textContent = text;
      return element;
    };
    add(row, "span", kind.sign).className = "sign";
    const name = add(row, "span", model.name(key));
    const several = model.scenes[model.items.get(key).scene].classes.length > 1;
    add(name, "small", several && kind.decision !== "not_landslide" ? `${kind.text}, ${model.classOf(key)}` : kind.text);
    const size = add(row, "span", model.area(key));
    size.className = "size";
    add(size, "small", probability === null ? "" : `${Math.round(100 * probability)} %`).title = "Mean probability";
    return row;
  }
}
