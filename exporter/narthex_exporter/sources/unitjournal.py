"""Read what journalctl tells of one unit, line by line. See journalctl(1), JSON output."""

import json
from collections.abc import Iterator
from typing import Any, Final

from narthex_exporter.contract.facts import JournalLine
from narthex_exporter.sources.text import clean

_ENTRY_BYTES: Final = 1 << 20
_TEXT_CHARACTERS: Final = 2000
_PRIORITIES: Final = 8


def arguments(unit: str, *, lines: int, after: str) -> tuple[str, ...]:
    """Say how journalctl is asked to follow a unit."""
    # With a cursor, nothing behind it may be left out as too old to be shown.
    begin = (f"--after-cursor={after}", "--no-tail") if after else (f"--lines={lines}",)
    return (
        "journalctl",
        f"--unit={unit}",
        "--follow",
        *begin,
        "--output=json",
        "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_PID",
        "--all",
        "--no-pager",
        "--quiet",
    )


def parse(chunks: Iterator[bytes]) -> Iterator[JournalLine | None]:
    """Read lines from journalctl's output; ``None`` where there is none at the moment.

    A line that is longer than 1 MiB is skipped, as is what is not journalctl's.
    """
    kept = bytearray()
    skipping = False
    for chunk in chunks:
        if not chunk:
            yield None
            continue
        kept += chunk
        *whole, rest = kept.split(b"\n")
        for raw in whole:
            line = None if skipping else _line(bytes(raw))
            skipping = False
            if line is not None:
                yield line
        kept = bytearray() if len(rest) > _ENTRY_BYTES or skipping else bytearray(rest)
        skipping = skipping or len(rest) > _ENTRY_BYTES


def _line(raw: bytes) -> JournalLine | None:
    try:
        entry = json.loads(raw)
        return JournalLine(
            cursor=str(entry["__CURSOR"])[:256],
            at_seconds=int(entry["__REALTIME_TIMESTAMP"]) / 1e6,
            priority=_number(entry.get("PRIORITY"), most=_PRIORITIES - 1),
            identifier=clean(_text(entry.get("SYSLOG_IDENTIFIER")), limit=64),
            pid=_number(entry.get("_PID"), most=1 << 22),
            text=clean(_text(entry.get("MESSAGE")), limit=_TEXT_CHARACTERS),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _text(value: Any) -> str | bytes:
    """Read a field: journalctl gives what is not UTF-8 as a list of bytes."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        return bytes(value)
    if isinstance(value, list) and value:  # a field that stands there more than once
        return _text(value[0])
    return value if isinstance(value, str) else ""


def _number(value: Any, *, most: int) -> int | None:
    text = value if isinstance(value, str) else ""
    return int(text) if text.isdecimal() and len(text) <= 8 and int(text) <= most else None  # noqa: PLR2004
