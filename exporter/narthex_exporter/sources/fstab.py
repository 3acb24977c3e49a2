"""Read what should be mounted, from fstab(5)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_FIELDS: Final = 3
# Beyond that it is no table of a person's.
_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line; ``device`` is as written, so perhaps ``UUID=…``."""

    device: str
    path: bytes
    kind: str
    options: frozenset[str]

    @property
    def point(self) -> str:
        """The mount point; what is not UTF-8 is shown as U+FFFD."""
        return self.path.decode("utf-8", "replace")


def parse(data: bytes) -> list[Entry]:
    """Parse the table; comments and lines of another shape are skipped."""
    found = []
    for line in data.split(b"\n"):
        words = line.split()
        if len(words) < _FIELDS or words[0].startswith(b"#"):
            continue
        options = words[3] if len(words) > _FIELDS else b"defaults"
        path = _unescape(words[1])
        found.append(
            Entry(
                device=_unescape(words[0]).decode("utf-8", "replace"),
                path=path.rstrip(b"/") or b"/" if path.startswith(b"/") else path,
                kind=words[2].decode("utf-8", "replace"),
                options=frozenset(options.decode("utf-8", "replace").split(",")),
            )
        )
    return found


def parse_swaps(data: bytes) -> list[str]:
    """Name the devices and files of /proc/swaps that are swapped to."""
    words = [line.split() for line in data.split(b"\n")[1:]]
    return [_unescape(word[0]).decode("utf-8", "replace") for word in words if word]


def read(path: Path) -> list[Entry]:
    """Read the table. Raises OSError."""
    with path.open("rb") as file:
        return parse(file.read(_MOST_BYTES))


def _unescape(word: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word)
