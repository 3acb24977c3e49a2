// Show six lines of a very long log line at first, and a button that shows them all.
function fit() {
  const place = document.querySelector("[data-whole]");
  if (!place) return;
  place.classList.add("is-clamped");
  // Read every height before anything changes: one layout, however many lines there are.
  const found = [...place.querySelectorAll(".log-text:not(.is-whole)")]
    .map((line) => [line, line.scrollHeight > line.clientHeight + 1]);
  for (const [line, long] of found) {
    const next = line.nextElementSibling;
    if (long && !next) line.after(toggle(place.dataset.whole, line));
    else if (!long && next) next.remove();
  }
}

function toggle(label, line) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-sm log-toggle";
  button.textContent = label;
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const whole = line.classList.toggle("is-whole");
    button.setAttribute("aria-expanded", String(whole));
    // Folding a line of many screens up must not leave the reader elsewhere.
    if (!whole) button.scrollIntoView({ block: "nearest" });
  });
  return button;
}

let asked = 0;
function again() {
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(fit);
}

fit();
document.addEventListener("htmx:load", again);
window.addEventListener("resize", again);
