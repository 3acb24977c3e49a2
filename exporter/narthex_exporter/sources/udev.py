"""Read what udev knows of devices, from its database."""

import os
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.sources.place import Paths

_NOTHING: Final[dict[str, str]] = {}


def parse(data: bytes) -> dict[str, str]:
    """Parse a device's entry: the properties are the lines that begin with ``E:``."""
    found = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals and name.startswith("E:"):
            found[name[2:]] = value
    return found


@dataclass(slots=True)
class Udev:
    """The database of udev(7); a device's entry is read again when it has been replaced."""

    paths: Paths = field(default_factory=Paths)
    _known: dict[str, tuple[tuple[int, int, int], dict[str, str]]] = field(
        default_factory=dict, init=False
    )

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one that has read nothing yet."""
        return cls(paths)

    def block(self, major: str, minor: str) -> dict[str, str]:
        """Give the properties of a block device; nothing where udev has no entry."""
        return self._entry(f"b{major}:{minor}")

    def _entry(self, name: str) -> dict[str, str]:
        path = f"{self.paths.udev}/{name}"
        try:
            about = os.stat(path)  # noqa: PTH116 - hot path
            # udev renames a new file over the old one.
            version = (about.st_mtime_ns, about.st_ino, about.st_size)
            kept = self._known.get(name)
            if kept is not None and kept[0] == version:
                return kept[1]
            with open(path, "rb") as file:  # noqa: PTH123 - hot path
                found = parse(file.read())
        except OSError:
            self._known.pop(name, None)
            return _NOTHING
        self._known[name] = (version, found)
        return found
