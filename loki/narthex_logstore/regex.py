"""Compile regular expressions as Loki's RE2 understands them; their time is linear."""

import re
from typing import Final, Protocol

import re2

from narthex_logstore.model import QueryError

_ANCHOR: Final = re.compile(r"[\^$]|\\[AzQEC]")


class Found(Protocol):
    """A match."""

    def start(self) -> int:
        """Tell where it begins."""
        ...


class Pattern(Protocol):
    """A compiled expression over UTF-8."""

    def search(self, text: bytes, pos: int = 0) -> Found | None:
        """Find it anywhere from ``pos`` on."""
        ...


def searching(pattern: str) -> Pattern:
    """Compile an expression that may match anywhere. Raises QueryError."""
    return _compile(pattern, never_nl=False)


def within_lines(pattern: str) -> Pattern | None:
    """Compile an expression to search many lines at once; no match reaches over a newline.

    None for one that speaks of the line's beginning or end.
    """
    if _ANCHOR.search(pattern.replace("[^", "[")):
        return None
    return _compile(pattern, never_nl=True)


def _compile(pattern: str, *, never_nl: bool) -> Pattern:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.never_nl = never_nl
    options.max_mem = 8 << 20
    try:
        compiled: Pattern = re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        why = error.args[0] if error.args else error
        text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise QueryError(f"parse error : error parsing regexp: {text}") from error
    return compiled


def whole(pattern: str) -> Pattern:
    """Compile an expression that must match all of a value. Raises QueryError."""
    searching(pattern)  # so that an unbalanced parenthesis cannot leave the group below
    return searching(rf"\A(?s:{pattern})\z")
