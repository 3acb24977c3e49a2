// Open a terminal in a container, and carry bytes both ways until one side ends it.
import { text } from "./dom.js";
import { Keys } from "./terminal_keys.js";
import { Pasting } from "./terminal_paste.js";
import { Screen } from "./terminal_screen.js";
import { askTicket, openSocket } from "./tickets.js";

const PIECE_BYTES = 16 << 10;
const RESIZE_MS = 100;
const LOST = 1006;
// Control and format characters, which a hostile node may put into its reasons.
const UNSHOWN = /[\p{Cc}\p{Cf}]/gu;

const root = document.querySelector("[data-terminal]");
const find = (name) => root.querySelector(`[data-${name}]`);
const texts = root.dataset;
const ends = JSON.parse(texts.ends);
const form = find("form");
const status = find("status");
const host = find("screen");

const screen = new Screen(host, {
  gap: (bytes) => texts.textGap.replace("{size}", `${(bytes / 1024).toFixed(0)} KiB`),
});
const { term } = screen;
const tell = (message) => { find("told").textContent = message; };
const pasting = new Pasting(host, term, { tell, texts });
const keys = new Keys(find("keys"), term);
let socket = null;
let opening = false;

function say(state, message) {
  status.dataset.state = state;
  status.textContent = message;
}

function fail(message) {
  const box = find("problem");
  box.hidden = !message;
  find("problem-text").textContent = message.replace(UNSHOWN, " ");
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => ({}));
  const fields = (told.errors ?? []).map((one) => one.message);
  return [told.detail ?? `${answer.status}`, ...fields, told.hint ?? ""].filter(Boolean).join(" · ");
}

/** Ask for what the form says; gives the ticket, or nothing where it is refused and told. */
async function ticket() {
  let answer = null;
  try {
    answer = await askTicket({
      node: texts.node,
      name: "container.exec",
      reason: form.elements.reason.value,
      params: {
        container: texts.container,
        command: form.elements.command.value.trim().split(/\s+/),
        columns: term.cols,
        rows: term.rows,
      },
    });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // fetch: the network failed
    fail(text("unreachable"));
    return "";
  }
  if (answer.status === 401) { location.reload(); return ""; }
  if (answer.ok) return (await answer.json()).ticket;
  fail(await problemOf(answer));
  return "";
}

async function open() {
  if (socket || opening) return;
  opening = true;
  find("open").disabled = true;
  fail("");
  find("live-part").hidden = false;
  say("connecting", texts.textConnecting);
  screen.open();
  try {
    const found = await ticket();
    if (found) connect(found);
    else say("closed", texts.textClosed);
  } finally {
    opening = false;
    find("open").disabled = false;
  }
}

function connect(found) {
  const made = openSocket(found);
  let refused = "";
  made.binaryType = "arraybuffer";
  socket = made;
  made.onmessage = ({ data }) => {
    if (socket !== made) return;
    if (data instanceof ArrayBuffer) { screen.take(new Uint8Array(data)); return; }
    const told = JSON.parse(data);
    if (told.problem) refused = [told.problem.message, told.problem.hint].filter(Boolean).join(" · ");
    if (told.opened) begin();
  };
  made.onclose = ({ code, reason }) => {
    if (socket === made) end(refused || (code === LOST ? texts.textLost : ends[reason] ?? (reason || `${code}`)));
  };
}

function begin() {
  screen.clear();
  form.hidden = true;
  host.classList.remove("is-over");
  say("live", texts.textConnected);
  tell("");
  find("end").disabled = find("paste").disabled = false;
  screen.fit();
  resized();
  term.focus({ preventScroll: true });
  find("live-part").scrollIntoView({ block: "end", behavior: "instant" });
}

function end(why) {
  const going = socket;
  socket = null;
  going?.close();
  const told = texts.textEnded.replace("{why}", why.replace(UNSHOWN, " "));
  say("ended", told);
  keys.hold(false);
  if (pasting.dialog.open) pasting.dialog.close();
  host.classList.add("is-over");
  find("end").disabled = find("paste").disabled = true;
  find("over").hidden = false;
  find("over-why").textContent = told;
  find("open-text").textContent = texts.textAgain;
  form.hidden = false;
  find("open").focus();
}

function send(bytes) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) socket.send(bytes.subarray(at, at + PIECE_BYTES));
}

function resized() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ columns: term.cols, rows: term.rows }));
}

/** Take the keys that are the page's own: they never reach the container. */
function ours(event) {
  if (event.type !== "keydown") return true;
  const shifted = event.ctrlKey && event.shiftKey && !event.altKey;
  if (shifted && event.code === "Period") {
    event.preventDefault();
    find("leave").focus();
    return false;
  }
  if ((shifted && event.code === "KeyC") || (event.ctrlKey && !event.shiftKey && event.code === "Insert")) {
    event.preventDefault();
    pasting.copy();
    return false;
  }
  // The browser pastes by itself, and is listened to.
  return !((shifted && event.code === "KeyV") || (event.shiftKey && event.code === "Insert"));
}

term.attachCustomKeyEventHandler(ours);
term.onData((typed) => send(new TextEncoder().encode(keys.typed(typed))));
term.onBinary((typed) => send(Uint8Array.from(typed, (one) => one.charCodeAt(0) & 0xff)));
let later = 0;
term.onResize(() => { clearTimeout(later); later = setTimeout(resized, RESIZE_MS); });

form.addEventListener("submit", (event) => { event.preventDefault(); open(); });
find("leave").addEventListener("click", () => { term.blur(); find("leave").focus(); });
find("copy-selection").addEventListener("click", () => pasting.copy());
find("paste").addEventListener("click", () => pasting.fromClipboard());
find("end").addEventListener("click", () => end(texts.textMine));
window.addEventListener("pagehide", () => { if (socket) end(texts.textMine); });
window.addEventListener("beforeunload", (event) => { if (socket) event.preventDefault(); });
// A phone's keyboard covers the page without making it smaller.
window.visualViewport?.addEventListener("resize", () => {
  const { height, scale } = window.visualViewport;
  host.style.setProperty("--seen", `${height * scale}px`);
});
