"""Read os-release(5)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.text import clean

_PLACES: Final = ("/etc/os-release", "/usr/lib/os-release")
_ESCAPE: Final = re.compile(r"\\(.)")
_QUOTED: Final = 2


def parse(text: str) -> dict[str, str]:
    """Parse os-release(5): assignments as a shell would take them; what is no such is skipped."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.replace("_", "").isalnum():
            found[key] = clean(_unquoted(value.strip()), limit=256)
    return found


def _unquoted(value: str) -> str:
    if len(value) >= _QUOTED and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= _QUOTED and value[0] == value[-1] == '"':
        value = value[1:-1]
    return _ESCAPE.sub(r"\1", value)


@dataclass(slots=True)
class OsRelease:
    """The system's name and version, read again when the file changes."""

    paths: Paths
    _seen: tuple[int, int, int] | None = field(default=None, init=False)
    _fields: Mapping[str, str] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        return cls(paths)

    def get(self) -> Mapping[str, str]:
        """Give the fields. Raises FileNotFoundError where there is no such file."""
        for place in _PLACES:
            path = self.paths.rooted(place)
            try:
                about = os.stat(path)  # noqa: PTH116 - hot path
            except FileNotFoundError:
                continue
            seen = (about.st_ino, about.st_mtime_ns, about.st_size)
            if seen != self._seen:
                self._fields = parse(path.read_text(encoding="utf-8", errors="replace"))
                self._seen = seen
            return self._fields
        raise FileNotFoundError("no os-release")
