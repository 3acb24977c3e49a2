// Draw what a container's command writes: xterm, held to this page's policy and to its theme.
import { FitAddon } from "../vendor/xterm-addon-fit/addon-fit.js";
import { Terminal } from "../vendor/xterm/xterm.js";

const SCROLLBACK_LINES = 5000;
const MOST = 1000; // columns or rows: as many as a node takes
const WAITING_BYTES = 4 << 20;
const AT_ONCE_BYTES = 256 << 10;
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const CANCEL = "\x18"; // ends an escape sequence that has lost its end

/**
 * Let xterm style itself under the page's policy: the <style> elements that it makes carry the
 * page's nonce, and what it would write into style attributes is set by the CSS object model.
 */
function fitPolicy() {
  const nonce = document.querySelector("[data-style-nonce]").nonce;
  const create = document.createElement;
  document.createElement = function createElement(...given) {
    const made = create.apply(this, given);
    if (made instanceof HTMLStyleElement) made.nonce = nonce;
    return made;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
}

function theme() {
  const found = getComputedStyle(document.documentElement);
  const read = (name) => found.getPropertyValue(`--term-${name}`).trim();
  const colours = {
    background: read("ground"), foreground: read("ink"), cursor: read("cursor"),
    cursorAccent: read("ground"), selectionBackground: read("selection"),
  };
  COLOURS.forEach((name, index) => {
    colours[name] = read(index);
    colours[`bright${name[0].toUpperCase()}${name.slice(1)}`] = read(index + 8);
  });
  return colours;
}

/** A screen in ``host``. ``gap`` makes the text that stands for bytes that were left out. */
export class Screen {
  constructor(host, { gap }) {
    this.host = host;
    this.gap = gap;
    this.waiting = [];
    this.size = this.busy = this.missed = 0;
    this.turn = 0;
    fitPolicy();
    this.term = new Terminal({
      scrollback: SCROLLBACK_LINES,
      theme: theme(),
      fontFamily: 'ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace',
      fontSize: 13,
      minimumContrastRatio: 4.5,
      cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      windowOptions: {},
      linkHandler: { activate() {} },
    });
    this.withhold();
    this.fitter = new FitAddon();
    this.term.loadAddon(this.fitter);
    new MutationObserver(() => { this.term.options.theme = theme(); })
      .observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
  }

  /** Take away what lets output reach beyond the screen: clipboard, title, links, its own reports. */
  withhold() {
    const { parser } = this.term;
    for (const code of [0, 1, 2, 8, 52]) parser.registerOscHandler(code, () => true);
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, () => true); // DECRQSS
    // 20 and 21 report the title, 22 and 23 keep it.
    parser.registerCsiHandler({ final: "t" }, () => true);
  }

  /** Show it; the host must be visible. */
  open() {
    if (!this.term.element) {
      this.term.open(this.host);
      new ResizeObserver(() => this.fit()).observe(this.host);
    }
    this.fit();
  }

  fit() {
    const found = this.fitter.proposeDimensions();
    if (!found || !Number.isFinite(found.cols) || !Number.isFinite(found.rows)) return;
    this.term.resize(Math.min(found.cols, MOST), Math.min(found.rows, MOST));
  }

  /** Begin anew, for another session. */
  clear() {
    this.turn++;
    this.waiting = [];
    this.size = this.busy = this.missed = 0;
    this.term.write(`${CANCEL}\x1bc`); // in its turn, behind what is still to be drawn
  }

  /** Show bytes. Of what comes faster than it can be drawn the oldest is left out, and it is said. */
  take(bytes) {
    this.waiting.push(bytes);
    this.size += bytes.length;
    while (this.size > WAITING_BYTES) {
      const left = this.waiting.shift().length;
      this.size -= left;
      this.missed += left;
    }
    this.pump();
  }

  pump() {
    while (this.waiting.length && this.busy < AT_ONCE_BYTES) {
      if (this.missed) {
        this.term.write(`${CANCEL}\x1b[0m\r\n[${this.gap(this.missed)}]\r\n`);
        this.missed = 0;
      }
      const bytes = this.waiting.shift();
      const { turn } = this;
      this.size -= bytes.length;
      this.busy += bytes.length;
      this.term.write(bytes, () => {
        if (turn !== this.turn) return;
        this.busy -= bytes.length;
        this.pump();
      });
    }
  }
}
