"""Make text from nodes fit to be shown: escapes, controls and direction marks become visible."""

import re
from typing import Final

# ECMA-48 sequences: CSI, OSC and the other strings, two-byte escapes.
_ANSI: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# Controls but tab and line feed, and the marks that reorder or hide text (Unicode TR 36).
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def clean(value: object, limit: int = 16_384) -> str:
    """Drop terminal escapes, replace what would be invisible or reorder text, bound the length."""
    text = _UNSAFE.sub(_REPLACEMENT, _ANSI.sub("", str(value).replace("\r\n", "\n")))
    return text if len(text) <= limit else f"{text[:limit]}…"


def one_line(value: object, limit: int = 512) -> str:
    """Do as ``clean`` does, and put line ends out of the way."""
    return clean(value, limit).replace("\n", " ").replace("\t", " ")


def matches(line: str, wanted: str) -> list[tuple[str, bool]]:
    """Cut a line into parts, each with whether it is what was searched for."""
    if not wanted:
        return [(line, False)]
    parts: list[tuple[str, bool]] = []
    for index, part in enumerate(line.split(wanted)):
        if index:
            parts.append((wanted, True))
        if part:
            parts.append((part, False))
    return parts
