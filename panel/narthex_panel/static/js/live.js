// Keep a page fresh from its event stream: closed while hidden, opened again when it breaks.
import { announce, nodesFrom, rowsFrom, text } from "./dom.js";
import { first } from "./tables.js";

const RETRY_MS = [1000, 2000, 5000, 10000, 15000];

class Stream {
  constructor(badge) {
    this.badge = badge;
    this.tries = 0;
    this.source = null;
    this.lostAt = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", () => this.open());
    this.open();
  }

  open() {
    if (this.source || document.hidden || this.over) return;
    const source = new EventSource(this.badge.dataset.live);
    this.source = source;
    source.onopen = () => { this.tries = 0; this.lostAt = null; this.say("live", text("live")); };
    source.onerror = () => this.lost();
    source.addEventListener("rows", (event) => {
      const data = JSON.parse(event.data);
      const table = first();
      // A page that was empty has no table to put the first row in.
      if (!table) { location.reload(); return; }
      table.patch(rowsFrom(Object.values(data.rows).join("")), data.removed, data.order);
      for (const total of document.querySelectorAll("[data-total]")) total.textContent = data.order.length;
    });
    source.addEventListener("part", (event) => {
      const data = JSON.parse(event.data);
      fill(data.id, data.html);
    });
    source.addEventListener("parts", (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) fill(id, html);
    });
    source.addEventListener("problem", (event) => {
      this.say("problem", JSON.parse(event.data).message);
    });
    source.addEventListener("recovered", () => this.say("live", text("live")));
    source.addEventListener("ended", (event) => {
      this.close();
      this.over = true;
      if (JSON.parse(event.data).reason === "signed-out") location.reload();
      else { this.say("over", ""); document.dispatchEvent(new Event("panel:final")); }
    });
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  lost() {
    this.close();
    this.lostAt ??= new Date();
    const since = this.lostAt.toLocaleTimeString(document.documentElement.lang, {
      hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    });
    this.say("lost", `${text("reconnecting")} ${since}`);
    this.timer = setTimeout(() => this.open(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
  }

  say(state, message) {
    this.badge.dataset.state = state;
    if (this.badge.textContent !== message) this.badge.textContent = message;
  }
}

const waiting = new Map();

/** Replace a part of the page, unless a person is in the middle of it or points at its levers. */
function fill(id, html) {
  const place = document.querySelector(`[data-part="${CSS.escape(id)}"]`);
  if (!place) return;
  if (place.hasAttribute("data-hold") && place.matches(":hover")) {
    if (!waiting.has(id)) {
      place.addEventListener("pointerleave", () => {
        const latest = waiting.get(id);
        waiting.delete(id);
        fill(id, latest);
      }, { once: true });
    }
    waiting.set(id, html);
    return;
  }
  if (place.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
  const opened = [...place.querySelectorAll("details[open]")].map((one) => one.id).filter(Boolean);
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...nodesFrom(html));
  for (const one of opened) document.getElementById(one)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus();
  announce(place);
}

const watched = new WeakSet();

export function attach(root = document) {
  for (const badge of root.querySelectorAll("[data-live]")) {
    if (watched.has(badge)) continue;
    watched.add(badge);
    new Stream(badge);
  }
}
