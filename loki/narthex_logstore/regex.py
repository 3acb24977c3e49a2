"""Compile regular expressions as Loki's RE2 understands them; their time is linear."""

from typing import Protocol

import re2

from narthex_logstore.model import QueryError


class Pattern(Protocol):
    """A compiled expression over UTF-8."""

    def search(self, text: bytes) -> object | None:
        """Find it anywhere."""
        ...


def searching(pattern: str) -> Pattern:
    """Compile an expression that may match anywhere. Raises QueryError."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
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
