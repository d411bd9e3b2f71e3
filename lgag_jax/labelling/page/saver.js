// Sends answers to the server, again and again until they are on its disk. What is not saved yet is kept
// in the browser, so that neither a closed page nor a stopped server loses it.

const RETRY = 1000; // Milliseconds.

export class Saver extends EventTarget {
  constructor(version) {
    super();
    this.version = version;
    this.place = `lgag answers ${location.pathname}`;
    this.pending = new Map(this.restored());
    this.busy = false;
  }

  restored() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.place) ?? "null");
      return kept?.version === this.version ? kept.answers : [];
    } catch {
      return [];
    }
  }

  add(answers) {
    for (const [number, label] of answers) this.pending.set(number, label);
    this.keep();
    this.flush();
  }

  keep() {
    try {
      const content = JSON.stringify({ version: this.version, answers: [...this.pending] });
      if (this.pending.size) localStorage.setItem(this.place, content);
      else localStorage.removeItem(this.place);
    } catch { /* Without storage, the page keeps them. */ }
  }

  async flush() {
    if (this.busy || !this.pending.size) return;
    this.busy = true;
    const batch = [...this.pending].slice(0, 10000);
    let problem = "";
    let retry = true;
    try {
      const response = await post("answers", { version: this.version, answers: batch });
      if (response.ok) {
        for (const [number, label] of batch) {
          if (this.pending.get(number) === label) this.pending.delete(number);
        }
        this.keep();
      } else {
        problem = await reason(response);
        retry = response.status >= 500;
      }
    } catch {
      problem = "The server does not respond. Start it again with the same command; this page then goes on.";
    }
    this.busy = false;
    this.dispatchEvent(new CustomEvent("status", { detail: { problem, waiting: this.pending.size } }));
    if (this.pending.size && retry) setTimeout(() => this.flush(), problem ? RETRY : 0);
  }
}

export function post(address, content) {
  return fetch(address, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
  });
}

export async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The server answered ${response.status}.`;
  }
}
