// Copy the third-party assets that the panel serves out of node_modules, with their licences.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "node_modules");
const out = join(here, "narthex_panel", "static", "vendor");

const FILES = [
  ["@tabler/core/dist/css/tabler.min.css", "tabler/tabler.min.css"],
  ["htmx.org/dist/htmx.min.js", "htmx/htmx.min.js"],
  ["htmx.org/LICENSE", "htmx/LICENSE"],
  ["uplot/dist/uPlot.iife.min.js", "uplot/uplot.min.js"],
  ["uplot/dist/uPlot.min.css", "uplot/uplot.min.css"],
  ["uplot/LICENSE", "uplot/LICENSE"],
  ["@xterm/xterm/lib/xterm.mjs", "xterm/xterm.js"],
  ["@xterm/xterm/css/xterm.css", "xterm/xterm.css"],
  ["@xterm/xterm/LICENSE", "xterm/LICENSE"],
  ["@xterm/addon-fit/lib/addon-fit.mjs", "xterm-addon-fit/addon-fit.js"],
  ["@xterm/addon-fit/LICENSE", "xterm-addon-fit/LICENSE"],
];

// The icons in use, one name a line: templates name no other (a test compares).
const ICONS = [
  "activity", "alert-triangle", "bell", "bell-off", "check", "chevron-down",
  "chevron-right", "circle-check", "circle-dashed", "circle-x", "clipboard", "clock", "copy", "cpu", "eye",
  "file-text", "history", "info-circle", "key", "list-check", "lock", "logout",
  "player-play", "player-stop", "plug-connected-x", "plus", "power", "refresh", "rotate-clockwise", "search", "selector",
  "server-2", "settings", "shield-check", "terminal-2", "tools", "user", "x",
];

rmSync(out, { recursive: true, force: true });
for (const [from, to] of FILES) {
  mkdirSync(dirname(join(out, to)), { recursive: true });
  cpSync(join(modules, from), join(out, to));
}
// A reference to a map that is not shipped is a 404 in every developer's console.
for (const name of ["tabler/tabler.min.css", "xterm/xterm.js", "xterm-addon-fit/addon-fit.js"]) {
  const text = readFileSync(join(out, name), "utf8");
  writeFileSync(join(out, name),
    text.replace(/\/\*# sourceMappingURL=.*?\*\//, "").replace(/^\/\/# sourceMappingURL=.*\n?/m, ""));
}

const symbols = ICONS.map((name) => {
  const svg = readFileSync(join(modules, "@tabler/icons/icons/outline", `${name}.svg`), "utf8");
  const inner = svg.replace(/<!--[^]*?-->/, "").replace(/^[^]*?<svg[^]*?>/, "").replace("</svg>", "");
  return `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" `
    + `stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round">`
    + inner.replace(/\s*\n\s*/g, "") + "</symbol>";
});
mkdirSync(join(out, "tabler-icons"), { recursive: true });
writeFileSync(join(out, "tabler-icons/sprite.svg"),
  `<svg xmlns="http://www.w3.org/2000/svg">\n${symbols.join("\n")}\n</svg>\n`);
cpSync(join(modules, "@tabler/icons/LICENSE"), join(out, "tabler-icons/LICENSE"));
cpSync(join(here, "licenses/tabler-core.txt"), join(out, "tabler/LICENSE"));

const sums = readdirSync(out, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  .sort()
  .map((path) => `${createHash("sha256").update(readFileSync(path)).digest("hex")}  ${relative(out, path)}\n`);
writeFileSync(join(out, "SHA256SUMS"), sums.join(""));
