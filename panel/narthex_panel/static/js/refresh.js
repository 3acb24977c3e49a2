// Ask again for a table that has no stream: not while hidden, and rows keep their place.
import { rowsFrom } from "./dom.js";
import { first } from "./tables.js";

export function attach(root = document) {
  const element = root.querySelector?.("[data-refresh-seconds]");
  if (!element || element.dataset.refreshing) return;
  element.dataset.refreshing = "1";
  const period = Number(element.dataset.refreshSeconds) * 1000;
  let failed = 0;
  const again = async () => {
    if (!document.hidden && element.isConnected) {
      try {
        const answer = await fetch(location.href, { headers: { "HX-Request": "true" } });
        if (answer.status === 401) { location.reload(); return; }
        const rows = rowsFrom((await answer.text()));
        failed = answer.ok ? 0 : failed + 1;
        if (answer.ok && rows.length) {
          const keys = new Set(rows.map((row) => row.dataset.row));
          const table = first();
          const gone = [...table.body.rows].map((row) => row.dataset.row).filter((key) => key && !keys.has(key));
          table.patch(rows, gone, [...keys]);
        }
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // fetch: the network failed
        failed += 1;
      }
      element.dataset.state = failed > 1 ? "lost" : "live";
    }
    if (element.isConnected) setTimeout(again, period * Math.min(1 + failed, 6));
  };
  setTimeout(again, period);
}
