"""Say where the machine's files are, and keep the sources that live as long as the exporter."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The trees of the machine that is watched; in a container they are mounted elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    root: Path = Path("/")
    udev: Path = Path("/run/udev/data")

    def rooted(self, path: str) -> Path:
        """Give where the machine's own ``path``, which begins with a slash, is for us."""
        return self.root / path.lstrip("/")


class Source(Protocol):
    """What keeps state between scrapes. One with threads or descriptors has ``close()`` too."""

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        ...


S = TypeVar("S", bound=Source)


@dataclass(slots=True)
class Sources:
    """The sources in use, one of a kind. A test puts what it wants into ``known``."""

    known: dict[type, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def get(self, kind: type[S], paths: Paths) -> S:
        """Give the one of a kind, made if need be."""
        with self._lock:
            if kind not in self.known:
                self.known[kind] = kind.of(paths)
            found: S = self.known[kind]
            return found

    def close(self) -> None:
        """End what they run; those with nothing to end have no ``close``."""
        with self._lock:
            made = list(self.known.values())
            self.known.clear()
        for each in made:
            close = getattr(each, "close", None)
            if close is not None:
                close()
