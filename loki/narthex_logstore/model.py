"""The values that the log store is about: labels, entries and what bounds them."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from narthex_exporter.contract.errors import NarthexError

SECOND: Final = 1_000_000_000
# Sorted by name, each name once.
Labels = tuple[tuple[str, str], ...]


class Entry(NamedTuple):
    """One line: Unix nanoseconds, UTF-8 bytes, structured metadata."""

    ts: int
    line: bytes
    meta: Labels = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What pushes and queries may ask for: Loki's own defaults where it has any."""

    body_bytes: int = 8 << 20
    inflated_bytes: int = 32 << 20
    line_bytes: int = 256 << 10
    labels_per_stream: int = 15
    label_name_bytes: int = 1024
    label_value_bytes: int = 2048
    metadata_entries: int = 128
    metadata_bytes: int = 64 << 10
    streams: int = 50_000
    max_age_ns: int = 7 * 24 * 3600 * SECOND
    max_ahead_ns: int = 600 * SECOND
    out_of_order_ns: int = 3600 * SECOND
    entries_per_query: int = 5000
    series_per_query: int = 500
    steps_per_query: int = 11_000
    cells_per_query: int = 4_000_000
    answer_bytes: int = 64 << 20
    query_chars: int = 5120
    query_seconds: float = 30.0
    queries_at_a_time: int = 4


class QueryError(NarthexError):
    """A query is wrong or asks for too much; ``status`` is the HTTP status that Loki gives."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class PushError(NarthexError):
    """A push, or a part of it, is refused; ``status`` is the HTTP status that Loki gives."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def as_labels(pairs: dict[str, str]) -> Labels:
    """Sort pairs into labels."""
    return tuple(sorted(pairs.items()))


def format_labels(labels: Labels) -> str:
    """Write labels as a selector, as Loki does in messages."""
    inner = ", ".join(f"{name}={quote(value)}" for name, value in labels)
    return f"{{{inner}}}"


def quote(text: str) -> str:
    """Write a string as LogQL reads it."""
    escaped = "".join(
        {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c)
        or (c if c.isprintable() else _escape(c))
        for c in text
    )
    return f'"{escaped}"'


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004
