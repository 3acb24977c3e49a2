"""Collect every string that people read, and keep the translations complete.

Run ``python -m narthex_panel.messages`` after changing a string: it updates each ``messages.po``
and compiles it. What is new stands there untranslated, which a test refuses.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from narthex_exporter.actions import CATALOGUE
from narthex_panel.forms import fields_of
from narthex_panel.i18n import LANGUAGES, TRANSLATIONS

PACKAGE: Final = Path(__file__).parent
_METHODS: Final = [("**.py", "python"), ("templates/**.html", "jinja2")]
_KEYWORDS: Final = {
    "_": None,
    "gettext": None,
    "lazy_gettext": None,
    "ngettext": (1, 2),
}
_WIDTH: Final = 96


def extracted() -> Catalog:
    """Collect the strings of pages, code and declared actions."""
    found = Catalog(fuzzy=False)
    for name, line, message, comments, context in extract_from_dir(
        str(PACKAGE),
        [(pattern, method) for pattern, method in _METHODS],
        options_map={"**.html": {"trim_blocks": "true", "lstrip_blocks": "true"}},
        keywords=_KEYWORDS,
    ):
        found.add(message, None, [(name, line)], auto_comments=comments, context=context)
    for text in declared():
        found.add(text, None, [("actions", 1)])
    return found


def declared() -> Iterator[str]:
    """List the texts of the declared actions, which templates translate at run time."""
    for action in CATALOGUE.values():
        yield action.title
        for text in (action.summary, action.description):
            if text:
                yield text
        for field in fields_of(action.params.model_json_schema()):
            yield field.title
            if field.description:
                yield field.description


def read(language: str) -> Catalog:
    """Read a language's translations."""
    with (_folder(language) / "messages.po").open("rb") as file:
        return read_po(file, locale=language)


def compiled(catalog: Catalog) -> bytes:
    """Compile translations as ``messages.mo`` has them."""
    out = io.BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def update() -> int:
    """Bring every language up to date; returns how many strings want a translation."""
    wanting = 0
    for language in LANGUAGES:
        if language == "en":
            continue
        folder = _folder(language)
        folder.mkdir(parents=True, exist_ok=True)
        known = (folder / "messages.po").exists()
        catalog = read(language) if known else Catalog(locale=language, fuzzy=False)
        template = extracted()
        template.creation_date = catalog.creation_date  # else each run would be a difference
        catalog.update(template, no_fuzzy_matching=True)
        catalog.obsolete.clear()
        with (folder / "messages.po").open("wb") as file:
            write_po(
                file, catalog, width=_WIDTH, sort_output=True, no_location=True, omit_header=False
            )
        (folder / "messages.mo").write_bytes(compiled(read(language)))
        wanting += sum(1 for one in catalog if one.id and not _translated(one.string))
    return wanting


def _translated(text: object) -> bool:
    return all(text) if isinstance(text, tuple | list) else bool(text)


def _folder(language: str) -> Path:
    return TRANSLATIONS / language / "LC_MESSAGES"


if __name__ == "__main__":
    left = update()
    sys.stdout.write(f"{left} strings want a translation\n")
