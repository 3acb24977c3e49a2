// The keys that a phone's keyboard lacks.

const PLAIN = { Escape: "\x1b", Tab: "\t" };
const MOVES = { Up: "A", Down: "B", Right: "C", Left: "D", Home: "H", End: "F" };

/** Give what Ctrl makes of a key; what it makes nothing of stays. */
function controlled(text) {
  if (text === " ") return "\0";
  if (text === "?") return "\x7f";
  return /^[@-_a-z]$/.test(text) ? String.fromCharCode(text.charCodeAt(0) & 0x1f) : text;
}

/** A bar of keys over ``term``: Ctrl is for the key that follows, on the bar or typed. */
export class Keys {
  constructor(bar, term) {
    this.term = term;
    this.control = bar.querySelector('[data-key="Control"]');
    // The keyboard stays where it is: a phone would fold it away.
    bar.addEventListener("pointerdown", (event) => event.preventDefault());
    bar.addEventListener("mousedown", (event) => event.preventDefault());
    bar.addEventListener("click", (event) => {
      const key = event.target.closest("[data-key]")?.dataset.key;
      if (key === "Control") this.hold(!this.held);
      else if (key) this.press(key);
    });
  }

  get held() { return this.control.getAttribute("aria-pressed") === "true"; }

  hold(held) { this.control.setAttribute("aria-pressed", String(held)); }

  press(key) {
    const move = MOVES[key];
    if (!move) this.term.input(PLAIN[key] ?? key, true);
    else if (this.held) { this.hold(false); this.term.input(`\x1b[1;5${move}`, true); }
    else this.term.input(`\x1b${this.term.modes.applicationCursorKeysMode ? "O" : "["}${move}`, true);
  }

  /** Give what was typed as it is to be sent. */
  typed(text) {
    if (!this.held) return text;
    this.hold(false);
    return controlled(text);
  }
}
