"""The values that pass from sources through the queue to the store."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

Labels = tuple[tuple[str, str], ...]
MAX_LINE_BYTES: Final = 256 * 1024
# A record's time that means: right behind the one before it in its stream.
FOLLOWS: Final = 0


class Record(NamedTuple):
    """One line as a source read it; ``ts_ns`` None means now, FOLLOWS right behind the last."""

    labels: Labels
    line: str
    ts_ns: int | None = None
    meta: Labels = ()


class Row(NamedTuple):
    """One entry of the queue, its time settled for good."""

    seq: int
    labels: Labels
    ts_ns: int
    line: str
    meta: Labels
    size: int


@dataclass(slots=True)
class Counters:
    """What the shipper counts since it started, by source, reason or code."""

    read_lines: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    push_failures: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    redactions: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    sent_entries: int = 0
    sent_bytes: int = 0
    truncations: int = 0
    rotations: int = 0
    clock_steps: int = 0
    restarts: int = 0

    @staticmethod
    def add(to: dict[str, int], key: str, count: int = 1) -> None:
        """Add to one of the counters that have a label."""
        to[key] = to.get(key, 0) + count


def make_labels(**labels: str) -> Labels:
    """Sort labels by name; empty ones are left out."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def readable(data: bytes) -> str:
    """Read bytes as UTF-8; of what is not, and of NUL, the number is written out in hex."""
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def pieces(line: str, limit: int = MAX_LINE_BYTES) -> list[str]:
    """Cut a line into pieces of at most ``limit`` bytes, between characters."""
    if len(line) * 4 <= limit:
        return [line]
    data = line.encode("utf-8", "replace")
    found = []
    while len(data) > limit:
        cut = limit
        while data[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - within a character
            cut -= 1
        found.append(data[:cut].decode())
        data = data[cut:]
    return [*found, data.decode()]
