// Mark what a regular expression found, in the browser of whoever wrote it.
const LONGEST = 4096;

function mark() {
  const place = document.querySelector("[data-highlight]");
  const pattern = place?.dataset.highlight;
  if (!pattern || !CSS.highlights) return;
  let expression;
  try {
    expression = new RegExp(pattern, "gu");
  } catch {
    return; // RE2 knows what JavaScript doesn't: lines are found all the same
  }
  const ranges = [];
  for (const line of place.querySelectorAll(".log-text")) {
    const node = line.firstChild;
    if (!node || node.length > LONGEST) continue;
    for (const found of node.data.matchAll(expression)) {
      if (!found[0]) break;
      const range = new Range();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

mark();
document.addEventListener("htmx:load", mark);
