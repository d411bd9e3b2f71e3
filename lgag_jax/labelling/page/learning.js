// What the server learns from the answers: suggestions, chances and an estimate of their quality.

const EVERY = 1000; // Milliseconds between two questions to the server.

export class Learning {
  constructor(model, root, map) {
    this.model = model;
    this.revision = -1;
    const find = (id) => root.querySelector(id);
    [this.looked, this.estimate, this.shown] = ["#looked", "#estimate", "#chances"].map(find);
    root.hidden = !model.learns;
    if (!model.learns) return;
    this.shown.addEventListener("change", () => map.showChances(this.shown.checked));
    model.addEventListener("answers", () => model.suggest(this.suggested ?? []));
    this.ask();
  }

  async ask() {
    try {
      const response = await fetch(`learned?revision=${Math.max(this.revision, 0)}${this.revision < 0 ? "x" : ""}`);
      if (response.ok) this.take(await response.json());
    } catch { /* The next answer says that the server is gone. */ }
    setTimeout(() => this.ask(), EVERY);
  }

  take({ revision, looked_at, problem, suggested, chances, estimate }) {
    const { model } = this;
    const all = model.tiles.length;
    this.looked.textContent = problem ? `No tiles are suggested: ${problem}`
      : looked_at < all ? `Looked at ${looked_at} of ${all} tiles.` : "";
    if (!suggested) return;
    this.revision = revision;
    this.suggested = suggested;
    model.suggest(suggested);
    if (chances || model.chance) model.learn(chances);
    this.shown.disabled = !chances;
    this.estimate.textContent = this.words(chances, estimate);
  }

  words(chances, estimate) {
    if (!chances) return "Answer at least three yes and three no. The first tiles are drawn at random.";
    if (!estimate) {
      return "The least sure tiles come next, every fourth at random. After five yes and five no among "
        + "the random ones, the quality is estimated here.";
    }
    const text = `Estimated image AUC: ${estimate.auc.toFixed(2)} \u00b1 ${estimate.error.toFixed(2)} `
      + `(${estimate.tiles} random tiles; 0.5 is guessing, 1 perfect).`;
    const { model } = this;
    const most = model.kinds.every(({ label }) => model.count(label) >= (model.wanted[label] ?? 0) / 2);
    return estimate.enough && most
      ? `${text} It has stopped rising: enough is labelled.` : text;
  }
}
