// The panel's own behaviour: dialogs, copying, confirmation, toasts, times, tables, live data.
import { nodesFrom, text } from "./dom.js";
import * as live from "./live.js";
import * as refresh from "./refresh.js";
import * as stream from "./stream.js";
import * as select from "./select.js";
import * as tables from "./tables.js";
import * as times from "./times.js";

const dialog = document.getElementById("dialog");
const body = document.getElementById("dialog-body");
let opener = null;

function toast(message, level = "info") {
  const element = document.createElement("div");
  element.className = `toast-line toast-${level}`;
  element.textContent = message;
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), level === "bad" ? 12000 : 4000);
}

function attach(root) {
  times.localise(root);
  tables.attach(root);
  live.attach(root);
  refresh.attach(root);
  stream.attach(root);
  checkConfirmation(root);
  for (const box of root.querySelectorAll?.("[data-at-end]") ?? []) box.scrollTop = box.scrollHeight;
}

/** Enable the last button only when the typed text is the thing's exact name. */
function checkConfirmation(root) {
  for (const input of root.querySelectorAll?.("[data-must-equal]") ?? []) {
    const button = input.form.querySelector("[data-final]");
    const check = () => { button.disabled = input.value !== input.dataset.mustEqual; };
    input.addEventListener("input", check);
    check();
  }
}

document.addEventListener("click", async (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  const blocked = target.closest("[aria-disabled=true]");
  if (blocked) {
    event.preventDefault();
    toast(blocked.dataset.why, "warn");
    return;
  }
  if (target.closest("[data-close]")) dialog.close();
  if (target === dialog) dialog.close();
  const copy = target.closest("[data-copy]");
  if (copy) {
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
    toast(text("copied"));
  }
  if (target.closest("[data-reload]")) location.reload();
});

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target === body && !dialog.open) opener = event.detail.elt;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, target } = event.detail;
  if (xhr.status === 401) { location.reload(); return; }
  if (xhr.status >= 400 && xhr.getResponseHeader("Content-Type")?.startsWith("text/html")) {
    // An error is shown where a person looks: in the dialog, which its own text names.
    event.detail.shouldSwap = false;
    event.detail.isError = false;
    body.replaceChildren(...nodesFrom(xhr.responseText));
    if (!dialog.open) dialog.showModal();
  } else if (target === body && xhr.status < 400) {
    event.detail.shouldSwap = xhr.status !== 204;
  }
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== body) return;
  dialog.classList.toggle("is-drawer", body.querySelector("[data-drawer]") !== null);
  if (!dialog.open) dialog.showModal();
  body.querySelector("[autofocus]")?.focus();
});
document.addEventListener("htmx:load", (event) => attach(event.detail.elt));
document.addEventListener("panel:added", (event) => times.localise(event.detail));
document.addEventListener("htmx:sendError", () => toast(text("unreachable"), "bad"));
document.addEventListener("htmx:responseError", (event) => {
  toast(`${event.detail.xhr.status} ${event.detail.xhr.statusText}`, "bad");
});
dialog.addEventListener("close", () => {
  const drawer = body.querySelector("[data-drawer]") !== null;
  body.replaceChildren();
  dialog.classList.remove("is-drawer");
  if (opener?.isConnected) opener.focus();
  opener = null;
  if (drawer) document.dispatchEvent(new Event("panel:changed"));
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-submit-on-change]")) event.target.form.requestSubmit();
});

document.querySelector(".tab.is-active")?.scrollIntoView({ block: "nearest", inline: "center" });
times.start();
select.start();
attach(document);
