// Turn rendered rows and parts from this origin into elements: the one place that does.

/** Parse rendered table rows; returns elements by their data-row. */
export function rowsFrom(html) {
  const parsed = new DOMParser().parseFromString(`<table><tbody>${html}</tbody></table>`, "text/html");
  return [...parsed.querySelectorAll("tr[data-row]")].map((row) => document.importNode(row, true));
}

/** Parse the rows of a page's table; null for a page without one. */
export function tableFrom(html) {
  const body = new DOMParser().parseFromString(html, "text/html").querySelector("tbody[data-rows]");
  if (!body) return null;
  return [...body.querySelectorAll(":scope > tr[data-row]")].map((row) => document.importNode(row, true));
}

/** Parse a rendered part of a page; returns its nodes. */
export function nodesFrom(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  return [...parsed.body.childNodes].map((node) => document.importNode(node, true));
}

/** Tell htmx about elements that it did not put there itself. */
export function announce(element) {
  if (window.htmx) window.htmx.process(element);
  document.dispatchEvent(new CustomEvent("panel:added", { detail: element }));
}

/** Read a translated text from the body. */
export function text(name) {
  return document.body.dataset[`text${name[0].toUpperCase()}${name.slice(1)}`] ?? "";
}
