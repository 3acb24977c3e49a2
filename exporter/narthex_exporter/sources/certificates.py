"""Read certificate files, each again only when it changes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.transport.certificate import Certificate, parse

# A chain of a few certificates is some 10 kB; what is bigger is no certificate file.
_MOST_BYTES: Final = 256 << 10
_MOST_FILES: Final = 4096


@dataclass(slots=True)
class CertificateFiles:
    """The certificates in files, each parsed again only when its file changes."""

    _known: dict[Path, tuple[tuple[int, int, int], Certificate | None]] = field(
        default_factory=dict, init=False
    )

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one that has read nothing."""
        return cls()

    def get(self, path: Path) -> Certificate | None:
        """Give the first certificate in a file, None where there is none that can be read."""
        try:
            told = path.stat()
        except OSError:
            self._known.pop(path, None)
            return None
        stamp = (told.st_mtime_ns, told.st_ino, told.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, load(path))
            except (OSError, ValueError):
                known = (stamp, None)
            if len(self._known) >= _MOST_FILES:
                self._known.clear()
            self._known[path] = known
        return known[1]


def load(path: Path) -> Certificate:
    """Read the first certificate of a PEM or DER file. Raises OSError, ValueError."""
    with path.open("rb") as file:
        return parse(file.read(_MOST_BYTES))
