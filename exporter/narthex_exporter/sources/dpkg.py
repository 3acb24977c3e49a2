"""Read which packages dpkg has, and how they are."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths

STATUS: Final = "/var/lib/dpkg/status"
_MOST_BYTES: Final = 64 << 20
_FIELDS: Final = re.compile(rb"^(Package|Status): (.*)$|^$", re.MULTILINE)
_INSTALLED: Final = frozenset({"installed", "triggers-pending", "triggers-awaited"})
_HALF: Final = frozenset({"half-installed", "unpacked", "half-configured"})
_WORDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """How many packages are installed and how many half so; the names of those on hold."""

    installed: int = 0
    broken: int = 0
    held: frozenset[str] = frozenset()


def parse_status(data: bytes) -> Packages:
    """Parse dpkg's status file, as dpkg(1) describes selections, states and flags.

    A package without a name or a state is passed over.
    """
    installed = broken = 0
    held: set[str] = set()
    name = ""
    for key, value in _FIELDS.findall(data):
        if key == b"Package":
            name = value.decode("utf-8", "replace").strip()
        elif not key:
            name = ""
        elif name:
            words = value.decode("ascii", "replace").split()
            if len(words) != _WORDS:
                continue
            selection, flag, state = words
            installed += state in _INSTALLED
            broken += state in _HALF or flag != "ok"
            if selection == "hold":
                held.add(name)
    return Packages(installed=installed, broken=broken, held=frozenset(held))


@dataclass(slots=True)
class Dpkg:
    """The status file, parsed again only when it changed."""

    path: Path
    _kept: Kept[Packages] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own file."""
        return cls(paths.rooted(STATUS))

    def get(self) -> Packages:
        """Give what is installed. Raises FileNotFoundError where there is no dpkg."""
        return self._kept.get(stamp((self.path,)), self._read)

    def _read(self) -> Packages:
        with self.path.open("rb") as file:
            return parse_status(file.read(_MOST_BYTES))
