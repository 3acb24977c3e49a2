// Keep which nodes are selected, by id, whatever becomes of their rows.
const selected = new Set();

function draw() {
  const place = document.getElementById("selection");
  if (!place) return;
  place.replaceChildren(...[...selected].map((id) => {
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = "node";
    input.value = id;
    return input;
  }));
  const bar = document.querySelector("[data-selection]");
  bar.hidden = selected.size === 0;
  bar.querySelector("[data-selection-count]").textContent = String(selected.size);
}

/** Mark the boxes of rows that are selected: a fresh row comes without. */
function mark(root) {
  for (const box of root.querySelectorAll?.("[data-select]") ?? []) {
    box.checked = selected.has(box.dataset.select);
  }
}

/** Forget nodes whose rows are gone: nobody should act on what they cannot see. */
function prune() {
  for (const id of selected) {
    if (!document.querySelector(`[data-select="${CSS.escape(id)}"]`)) selected.delete(id);
  }
}

export function start() {
  if (!document.getElementById("selection")) return;
  document.addEventListener("change", (event) => {
    const box = event.target.closest?.("[data-select]");
    if (!box) return;
    if (box.checked) selected.add(box.dataset.select);
    else selected.delete(box.dataset.select);
    draw();
  });
  document.addEventListener("click", (event) => {
    const all = event.target.closest?.("[data-select-shown]");
    const none = event.target.closest?.("[data-select-none]");
    if (all) {
      for (const box of document.querySelectorAll("tr[data-row]:not([hidden]) [data-select]:not(:disabled)")) {
        selected.add(box.dataset.select);
      }
    }
    if (none) selected.clear();
    if (all || none) { mark(document); draw(); }
  });
  document.addEventListener("panel:added", (event) => { mark(event.detail); prune(); draw(); });
  // A browser that restores a form would show boxes that nothing stands behind.
  mark(document);
}
