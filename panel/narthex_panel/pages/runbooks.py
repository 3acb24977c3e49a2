"""The runbook of an alert, where on-call stands when it fires."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask_babel import lazy_gettext

from narthex_operator.errors import NotFoundError
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(name="runbook", title=lazy_gettext("Runbook"), permission="alert:read")

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
# A wheel carries the runbooks inside the package, a checkout at its root.
_FOLDERS: Final = (
    Path(__file__).parents[1] / "runbooks",
    Path(__file__).parents[3] / "docs" / "runbooks",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph or a list; each line is text with `code` in it."""

    kind: str
    lines: tuple[str, ...]


@page.get("/runbooks/<name>")
def show(ui: Ui, name: str) -> Answer:
    """Show one runbook."""
    return ui.render("runbook.html", name=name, blocks=list(blocks(_read(name))))


def blocks(text: str) -> Iterator[Block]:
    """Take a runbook apart: it has headings, paragraphs and lists, and nothing else."""
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.splitlines()
        if part.startswith("# "):
            continue
        if part.startswith("## "):
            yield Block("heading", (lines[0][3:],))
        elif re.match(r"\d+\. ", part):
            yield Block("steps", tuple(_items(lines, r"\d+\. ")))
        elif part.startswith("- "):
            yield Block("list", tuple(_items(lines, "- ")))
        else:
            yield Block("text", (" ".join(lines),))


def _items(lines: list[str], mark: str) -> Iterator[str]:
    item = ""
    for line in lines:
        if re.match(mark, line) and item:
            yield item
            item = ""
        item = f"{item} {re.sub(f'^{mark}', '', line).strip()}".strip()
    yield item


def _read(name: str) -> str:
    if _NAME.fullmatch(name):
        for folder in _FOLDERS:
            path = folder / f"{name}.md"
            if path.is_file():
                return path.read_text(encoding="utf-8")
    raise NotFoundError(
        f"there is no runbook {name[:64]}", hint="rules of your own carry their own runbook_url"
    )
