// Ask again for a table that has no stream: not while hidden, and rows keep their place.
import { tableFrom, text } from "./dom.js";
import { first } from "./tables.js";

export function attach(root = document) {
  const element = root.querySelector?.("[data-refresh-seconds]");
  if (!element || element.dataset.refreshing) return;
  element.dataset.refreshing = "1";
  const badge = element.querySelector("[data-fresh]");
  const period = Number(element.dataset.refreshSeconds) * 1000;
  let failed = 0;
  let lastGood = new Date();

  const say = (state) => {
    if (!badge) return;
    badge.dataset.state = state;
    const since = lastGood.toLocaleTimeString(document.documentElement.lang, {
      hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    });
    badge.textContent = state === "live" ? text("live") : `${text("stale")} ${since}`;
  };

  const take = async () => {
    const answer = await fetch(location.href, { headers: { "HX-Request": "true" } });
    if (answer.status === 401) { location.reload(); return true; }
    const rows = answer.ok ? tableFrom(await answer.text()) : null;
    if (rows === null) return false;
    const keys = new Set(rows.map((row) => row.dataset.row));
    const table = first();
    const shown = [...table.body.rows].map((row) => row.dataset.row).filter(Boolean);
    table.patch(rows, shown.filter((key) => !keys.has(key)), [...keys]);
    return true;
  };

  const again = async () => {
    if (!document.hidden) {
      let good = false;
      try {
        good = await take();
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // fetch: the network failed
      }
      failed = good ? 0 : failed + 1;
      if (good) lastGood = new Date();
      say(good ? "live" : "lost");
    }
    if (element.isConnected) setTimeout(again, period * Math.min(1 + failed, 6));
  };
  say("live");
  setTimeout(again, period);
  // What a run did is shown at once, not at the next turn.
  for (const name of ["panel:changed", "panel:final"]) {
    document.addEventListener(name, () => take().catch(() => say("lost")));
  }
}
