"""Bind the rows of an audit to one another, and make their text harmless."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

GENESIS: Final = "0" * 64
_DETAIL_BYTES: Final = 16 * 1024


def canonical(row: Mapping[str, Any]) -> bytes:
    """Write a row the one way that is hashed: JSON, sorted keys, no spaces, ASCII."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def link(prev: str, row: Mapping[str, Any]) -> str:
    """Hash a row onto the one before: SHA-256(prev ‖ canonical), as hex."""
    return hashlib.sha256(prev.encode("ascii") + canonical(row)).hexdigest()


def clean(text: str, *, limit: int = 256) -> str:
    """Show control characters instead of sending them: no CR, LF, ESC, NUL or bidi survives.

    Cut to ``limit`` characters, marked by an ellipsis.
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def clean_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Make details harmless and bounded; what is too large is replaced by its size."""
    found: dict[str, Any] = {clean(str(k), limit=64): _clean(v) for k, v in details.items()}
    size = len(canonical(found))
    return found if size <= _DETAIL_BYTES else {"omitted_bytes": size}


def _clean(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 - NaN
    if isinstance(value, Mapping) and depth < 4:  # noqa: PLR2004
        return {clean(str(k), limit=64): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple) and depth < 4:  # noqa: PLR2004
        return [_clean(item, depth + 1) for item in value[:100]]
    return clean(str(value), limit=1024)
