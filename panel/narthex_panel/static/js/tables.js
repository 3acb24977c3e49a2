// Sort, filter and patch tables in place; nothing moves while the pointer is on them.
import { announce } from "./dom.js";

const tables = new Map();

class Table {
  constructor(root) {
    this.root = root;
    this.body = root.querySelector("[data-rows]");
    this.held = root.querySelector(".held");
    this.pointed = false;
    this.pending = null;
    const asked = new URLSearchParams(location.search);
    this.key = asked.get("sort") ?? "";
    this.descending = asked.get("dir") === "desc";
    for (const input of root.querySelectorAll("[data-filter]")) {
      const value = asked.get(input.dataset.filter);
      if (value !== null) input.value = value;
      input.addEventListener("input", () => { this.filter(); this.remember(); });
    }
    for (const head of root.querySelectorAll("[data-sort-key]")) {
      head.querySelector("button").addEventListener("click", () => this.choose(head.dataset.sortKey));
    }
    const select = root.querySelector("[data-sort-select]");
    if (select) {
      select.value = this.key;
      select.addEventListener("change", () => {
        if (select.value) this.choose(select.value);
        else {
          this.key = "";
          this.remember();
          location.reload();
        }
      });
    }
    this.body.addEventListener("pointerenter", () => { this.pointed = true; });
    this.body.addEventListener("pointerleave", () => this.release());
    this.body.addEventListener("focusout", () => setTimeout(() => this.release(), 0));
    this.sort();
    this.filter();
  }

  get frozen() {
    return this.pointed || this.body.contains(document.activeElement)
      || document.getElementById("dialog").open;
  }

  release() {
    this.pointed = this.body.matches(":hover");
    if (!this.frozen && this.pending) {
      const order = this.pending;
      this.pending = null;
      if (this.held) this.held.hidden = true;
      this.arrange(order);
    }
  }

  /** Put new or changed rows in, by key, keeping what a person points at where it is. */
  patch(rows, removed, order) {
    for (const row of rows) {
      const old = this.row(row.dataset.row);
      if (!old) this.body.append(row);
      else if (old.contains(document.activeElement)) this.fill(old, row);
      else if (!same(old, row)) old.replaceWith(row);
      announce(this.row(row.dataset.row));
    }
    for (const key of removed) {
      if (this.frozen) this.row(key)?.classList.add("is-gone");
      else this.row(key)?.remove();
    }
    if (this.frozen) {
      this.pending = order;
      if (this.held) this.held.hidden = false;
      this.filter();
    } else {
      this.arrange(order);
    }
  }

  /** Change the texts and figures of a row without touching the element that has the focus. */
  fill(old, row) {
    [...row.cells].forEach((cell, index) => {
      const place = old.cells[index];
      if (place && !place.contains(document.activeElement)) place.replaceWith(cell.cloneNode(true));
    });
    for (const { name, value } of row.attributes) old.setAttribute(name, value);
  }

  row(key) {
    return this.body.querySelector(`:scope > tr[data-row="${CSS.escape(key)}"]`);
  }

  arrange(order) {
    const known = new Set(order);
    for (const row of [...this.body.rows]) if (row.dataset.row && !known.has(row.dataset.row)) row.remove();
    if (this.key) this.sort();
    else {
      this.place(order.map((key) => this.row(key)).filter(Boolean));
    }
    this.filter();
  }

  /** Move only the rows that stand elsewhere, so that scroll and selection stay. */
  place(rows) {
    let before = this.body.querySelector(":scope > tr[data-row]");
    for (const row of rows) {
      if (row === before) {
        before = before.nextElementSibling;
        while (before && !before.dataset.row) before = before.nextElementSibling;
      } else this.body.insertBefore(row, before);
    }
  }

  choose(key) {
    if (this.key !== key) {
      this.key = key;
      this.descending = this.head(key).classList.contains("cell-figure")
        || this.head(key).classList.contains("cell-number");
    } else this.descending = !this.descending;
    this.sort();
    this.remember();
  }

  head(key) {
    return this.root.querySelector(`[data-sort-key="${CSS.escape(key)}"]`);
  }

  sort() {
    const heads = [...this.root.querySelectorAll("[data-sort-key]")];
    for (const head of heads) {
      const mine = head.dataset.sortKey === this.key;
      head.ariaSort = mine ? (this.descending ? "descending" : "ascending") : "none";
    }
    const column = heads.findIndex((head) => head.dataset.sortKey === this.key);
    if (column < 0) return;
    const sign = this.descending ? -1 : 1;
    const rows = [...this.body.querySelectorAll(":scope > tr[data-row]")];
    const keyed = rows.map((row, index) => ({ row, index, value: value(row, column) }));
    keyed.sort((a, b) => {
      // What is not known stands last, however the rest is sorted.
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.index - b.index;
      return sign * compare(a.value, b.value) || a.index - b.index;
    });
    this.place(keyed.map((entry) => entry.row));
  }

  filter() {
    const wanted = {};
    for (const input of this.root.querySelectorAll("[data-filter]")) {
      wanted[input.dataset.filter] = input.value.trim().toLowerCase();
    }
    let shown = 0;
    const rows = this.body.querySelectorAll(":scope > tr[data-row]");
    for (const row of rows) {
      const fits = (!wanted.q || row.dataset.text.includes(wanted.q))
        && (!wanted.state || row.dataset.state === wanted.state);
      row.hidden = !fits;
      shown += fits;
    }
    const none = this.root.querySelector("[data-none]");
    if (none) none.hidden = shown > 0 || rows.length === 0;
    const count = this.root.querySelector("[data-count]");
    if (count) count.textContent = String(shown);
  }

  remember() {
    const url = new URL(location.href);
    const set = (name, text) => (text ? url.searchParams.set(name, text) : url.searchParams.delete(name));
    set("sort", this.key);
    set("dir", this.key && this.descending ? "desc" : "");
    for (const input of this.root.querySelectorAll("[data-filter]")) set(input.dataset.filter, input.value.trim());
    history.replaceState(history.state, "", url);
  }
}

/** Tell whether a row says what it said: ages and times shown by the browser do not count. */
function same(old, row) {
  const plain = (one) => {
    const copy = one.cloneNode(true);
    for (const time of copy.querySelectorAll("time")) { time.textContent = ""; time.removeAttribute("title"); }
    copy.hidden = false;
    return copy;
  };
  return plain(old).isEqualNode(plain(row));
}

/** Read what a row is sorted by in a column; null for what is not known. */
function value(row, column) {
  let at = 0;
  for (const cell of row.cells) {
    if (column < at + cell.colSpan) {
      const raw = cell.dataset.sort ?? cell.textContent.trim().toLowerCase();
      const number = Number(raw);
      if (raw === "" || raw === "-1") return null;
      return Number.isNaN(number) ? raw : number;
    }
    at += cell.colSpan;
  }
  return null;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

export function attach(root = document) {
  for (const element of root.querySelectorAll("[data-table]")) {
    if (!tables.has(element) && element.querySelector("[data-rows]")) tables.set(element, new Table(element));
  }
  for (const element of tables.keys()) if (!element.isConnected) tables.delete(element);
}

export function first() {
  return tables.values().next().value;
}
