// Show what a node tells live: a ticket, then a WebSocket; closed while hidden, opened again later.
import { rowsFrom, text } from "./dom.js";
import { first } from "./tables.js";
import { askTicket, openSocket } from "./tickets.js";

const RETRY_MS = [1000, 2000, 5000, 10000, 15000];
const SIGNED_OUT = "signed-out";
const POLICY = 1008;

/** One stream of one node. ``show`` takes each message, ``say`` how the stream is. */
export class Feed {
  constructor({ node, name, params, show, say }) {
    Object.assign(this, { node, name, params, show, say });
    this.tries = 0;
    this.turn = 0;
    this.socket = null;
    this.over = false;
    this.problem = "";
    this.visible = () => (document.hidden ? this.close() : this.open());
    document.addEventListener("visibilitychange", this.visible);
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", () => this.open());
    this.open();
  }

  async open() {
    if (this.socket || this.opening || this.over || document.hidden) return;
    const turn = ++this.turn;
    this.opening = true;
    let ticket = null;
    try {
      ticket = await this.ticket();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // fetch: the network failed
    } finally {
      this.opening = false;
    }
    // Hidden or closed meanwhile: the ticket is left to grow old.
    if (turn !== this.turn) { this.open(); return; }
    if (document.hidden) return;
    if (ticket === null) this.lost();
    else if (ticket) this.connect(ticket);
  }

  /** Ask for a ticket: null where none can be had now, empty where none ever will. */
  async ticket() {
    const answer = await askTicket({ node: this.node, name: this.name, params: this.params() });
    if (answer.status === 401) { location.reload(); return ""; }
    if (answer.ok) return (await answer.json()).ticket;
    const told = await answer.json().catch(() => ({}));
    this.problem = told.detail ?? `${answer.status}`;
    if (answer.status === 403 || answer.status === 422) {
      this.over = true;
      this.say("problem", this.problem);
      return "";
    }
    return null;
  }

  connect(ticket) {
    const socket = openSocket(ticket);
    this.socket = socket;
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      const data = JSON.parse(event.data);
      if (data.problem) { this.problem = data.problem.message; return; }
      this.tries = 0;
      this.problem = "";
      this.lostAt = null;
      this.say("live", text("live"));
      if (!data.opened) this.show(data);
    };
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === POLICY && event.reason === SIGNED_OUT) location.reload();
      else this.lost();
    };
  }

  close() {
    this.turn++;
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  lost() {
    this.close();
    if (document.hidden || this.over) return;
    this.lostAt ??= new Date();
    const since = this.lostAt.toLocaleTimeString(document.documentElement.lang, {
      hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    });
    this.say("lost", this.problem || `${text("reconnecting")} ${since}`);
    this.timer = setTimeout(() => this.open(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
  }
}

const MOST_ROWS = 1000;

/** Patch the page's table: rows come in parts, the last of which has the order. */
function processes() {
  let rows = [];
  return ({ rows: more, order }) => {
    // A node that never ends a look must not fill the browser's memory.
    if (rows.length > MOST_ROWS) rows = [];
    rows.push(...more);
    if (!order) return;
    const table = first();
    if (!table) { location.reload(); return; }
    const known = new Set(order);
    const shown = [...table.body.rows].map((row) => row.dataset.row).filter(Boolean);
    table.patch(rowsFrom(rows.join("")), shown.filter((key) => !known.has(key)), order);
    rows = [];
  };
}

const MOST_LINES = 2000;

/** Say of a journal's line who wrote it, and how bad it is. */
function ofJournal({ identifier, pid, priority }) {
  const bad = priority !== null && priority <= 3;
  return {
    who: identifier ? `${identifier}${pid ? `[${pid}]` : ""}` : "",
    look: bad ? "is-bad" : priority === 4 ? "is-warn" : "",
  };
}

/** Say of a container's line which of several wrote it, and whether as an error. */
function ofContainers({ containers }) {
  return ({ container, stream }) => {
    const bad = stream === "stderr";
    const said = [containers.length > 1 ? container : "", bad ? stream : ""];
    return { who: said.filter(Boolean).join(" "), look: bad ? "is-bad" : "" };
  };
}

const LOGS = { "service.journal": () => ofJournal, "container.logs": ofContainers };

/** A log that grows at its end: it stays where a person scrolled to, and can be held. */
class Log {
  constructor(root, head) {
    this.root = root;
    this.head = head;
    this.lines = root.querySelector("[data-lines]");
    this.button = root.querySelector("[data-pause]");
    this.note = root.querySelector("[data-waiting]");
    this.paused = false;
    this.waiting = [];
    this.begun = false;
    this.cursor = "";
    this.button.addEventListener("click", () => this.pause(!this.paused));
  }

  /** Go on behind the last line that came, shown or held. */
  get place() {
    return this.cursor ? { after: this.cursor, lines: 0 } : {};
  }

  take({ lines, dropped, cursor }) {
    if (!this.begun) {
      // What the page came with is told again, with its place.
      this.begun = true;
      this.lines.replaceChildren();
    }
    if (cursor) this.cursor = cursor;
    const made = lines.map((line) => this.line(line));
    if (dropped) made.push(this.gap(dropped));
    if (!this.paused) this.add(made);
    else {
      this.waiting.push(...made);
      // Held lines are bounded too: the oldest go, and it is said how many wait.
      this.waiting.splice(0, this.waiting.length - MOST_LINES);
      this.tell();
    }
  }

  line(line) {
    const element = document.createElement("span");
    const { who, look } = this.head(line);
    element.className = `log-entry ${look}`;
    const time = line.at && new Date(line.at).toLocaleTimeString(document.documentElement.lang, {
      hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    });
    element.textContent = `${time ?? "—"} ${who ? `${who}: ` : ""}${line.text}\n`;
    return element;
  }

  gap(count) {
    const element = document.createElement("span");
    element.className = "log-entry log-gap";
    element.textContent = `${this.root.dataset.textDropped.replace("{count}", count)}\n`;
    return element;
  }

  add(made) {
    const box = this.lines;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    box.append(...made);
    while (box.childElementCount > MOST_LINES) box.firstElementChild.remove();
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  pause(paused) {
    this.paused = paused;
    this.button.setAttribute("aria-pressed", String(paused));
    if (!paused) {
      this.add(this.waiting);
      this.waiting = [];
    }
    this.tell();
  }

  tell() {
    this.note.hidden = !this.paused;
    this.note.textContent = this.root.dataset.textHeld.replace("{count}", this.waiting.length);
  }
}

const watched = new WeakSet();

export function attach(root = document) {
  for (const element of root.querySelectorAll?.("[data-stream]") ?? []) {
    if (watched.has(element)) continue;
    watched.add(element);
    const badge = element.querySelector("[data-fresh]");
    const asked = JSON.parse(element.dataset.params);
    const head = LOGS[element.dataset.stream]?.(asked);
    const log = head ? new Log(element, head) : null;
    new Feed({
      node: element.dataset.node,
      name: element.dataset.stream,
      params: () => ({ ...asked, ...log?.place }),
      show: log ? (data) => log.take(data) : processes(),
      say: (state, message) => {
        badge.dataset.state = state;
        if (badge.textContent !== message) badge.textContent = message;
      },
    });
  }
}
