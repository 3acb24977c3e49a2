// Copy from and paste into a terminal: never more than one line without a question.

// What ends a bracketed paste, or acts as a key, is no text: all controls but tabs and line ends.
const CONTROLS = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;
const SHOWN_CHARACTERS = 20000;

export class Pasting {
  /** ``tell`` says something to the person, ``texts`` how. */
  constructor(host, term, { tell, texts }) {
    Object.assign(this, { term, tell, texts });
    this.dialog = document.getElementById("paste-dialog");
    const find = (name) => this.dialog.querySelector(`[data-paste-${name}]`);
    find("yes").addEventListener("click", () => this.answer(true));
    find("no").addEventListener("click", () => this.answer(false));
    this.dialog.addEventListener("close", () => { this.asked = null; this.term.focus(); });
    this.shown = find("text");
    this.lines = find("lines");
    this.asked = null;
    host.addEventListener("paste", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.paste(event.clipboardData?.getData("text/plain") ?? "");
    }, { capture: true });
  }

  paste(text) {
    const clean = text.replace(CONTROLS, "");
    if (!clean) return;
    if (!/[\r\n]/.test(clean)) { this.put(clean); return; }
    this.asked = clean;
    const count = clean.replace(/\r?\n$|\r$/, "").split(/\r\n|\r|\n/).length;
    this.lines.textContent = this.texts.textLines.replace("{count}", count);
    this.shown.textContent = clean.length > SHOWN_CHARACTERS ? `${clean.slice(0, SHOWN_CHARACTERS)}…` : clean;
    this.dialog.showModal();
  }

  answer(yes) {
    const text = this.asked;
    this.dialog.close();
    if (yes && text) this.put(text);
  }

  put(text) {
    this.term.paste(text);
    this.term.focus();
  }

  async copy() {
    const text = this.term.getSelection();
    if (!text) { this.tell(this.texts.textCopyNone); return; }
    await navigator.clipboard.writeText(text);
    this.tell(document.body.dataset.textCopied);
  }

  async fromClipboard() {
    let text = null;
    try {
      text = await navigator.clipboard.readText();
    } catch {
      this.tell(this.texts.textPasteNone);
      return;
    }
    this.paste(text);
  }
}
