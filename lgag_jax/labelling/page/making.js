// Has the server make a map of the answers, and shows how far it is.

import { post, reason } from "./saver.js";

const EVERY = 1500; // Milliseconds between two questions to the server.

export class Making {
  constructor(model, root, problem) {
    this.model = model;
    this.problem = problem;
    const find = (id) => root.querySelector(id);
    [this.button, this.text, this.bar, this.label, this.layer] =
      ["#make-map", "#making-text", "#making-bar", "#layer-label", "#layer"].map(find);
    this.button.addEventListener("click", () => this.start());
    this.layer.addEventListener("change", () => model.setLayer({ shown: this.layer.checked }));
    this.ask();
  }

  async start() {
    this.button.disabled = true;
    try {
      const response = await post("make_map", {});
      if (response.ok) this.show(await response.json());
      else this.problem(await reason(response));
    } catch {
      this.problem("The server does not respond, so no map is made. Start it again with the same command.");
    }
  }

  async ask() {
    try {
      const response = await fetch("make_map");
      if (response.ok) this.show(await response.json());
    } catch { /* The next answer says that the server is gone. */ }
    setTimeout(() => this.ask(), EVERY);
  }

  show({ state, step, steps, line, share, seconds, missing, outdated, version, scenes }) {
    const running = state === "running";
    this.button.disabled = running || missing !== "";
    this.button.textContent = state === "stopped" ? "Go on with the map"
      : state === "done" ? "Make the map again" : "Make a map";
    this.bar.hidden = !running;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    const { output } = this.model;
    this.text.textContent = running
      ? `Step ${step + 1} of ${steps.length}: ${steps[step]}, ${duration(seconds)} so far. ${line}`
      : state === "failed" ? `No map was made. ${line}`
        : state === "stopped" ? "The map was stopped. What was done is kept."
          : missing || (state === "done"
            ? `Done: see maps/report.html and run/report.html in ${output}.`
              + ` To correct the map: lgag --mode=review --input=${output}/maps.`
              + `${outdated ? " Answers or decisions have changed since." : ""}`
            : "Trains on your answers and maps the scenes, in some minutes. You can label meanwhile.");
    this.label.hidden = !version;
    if (version !== this.model.layer.version || scenes.length !== this.model.layer.scenes.length) {
      this.model.setLayer({ version, scenes });
    }
  }
}

function duration(seconds) {
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
