"""Choose the language and the theme of a page."""

from pathlib import Path
from typing import Final

from flask import Flask, g, request
from flask_babel import Babel, gettext

LANGUAGES: Final = {"en": "English", "ru": "Русский"}
THEMES: Final = ("system", "light", "dark")
TRANSLATIONS: Final = Path(__file__).parent / "translations"


def install(app: Flask) -> None:
    """Give an application the panel's translations."""
    Babel(app, default_translation_directories=str(TRANSLATIONS), locale_selector=language)


def language() -> str:
    """Take the user's language, else the browser's best, else English."""
    session = g.get("session")
    if session is not None and session.user.language in LANGUAGES:
        return str(session.user.language)
    return request.accept_languages.best_match(list(LANGUAGES), "en") or "en"


def theme() -> str:
    """Take the user's theme; ``system`` follows the browser."""
    session = g.get("session")
    if session is not None and session.user.theme in THEMES:
        return str(session.user.theme)
    return "system"


def translated(text: str) -> str:
    """Translate text that was declared elsewhere (the catalogue); unknown text stays as it is."""
    return gettext(text) if text else ""
