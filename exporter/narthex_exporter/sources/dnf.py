"""Ask dnf which updates it knows of, from what it fetched last."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import Done, MissingError, run
from narthex_exporter.sources.rpm import DATABASES

# libdnf5's and dnf4's folder, of which each repository's metadata makes one more.
_CACHES: Final = ("/var/cache/libdnf5", "/var/cache/dnf")
_DNF: Final = ("dnf", "--quiet", "--cacheonly")
# dnf(8): there are updates.
_UPDATES: Final = 100
_COLUMNS: Final = 3
# name.arch, as the first column of a list has it.
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][\w.+~^-]*\.(?:noarch|[a-z]\w+)")
# name-[epoch:]version-release.arch
_NEVRA: Final = re.compile(r"([A-Za-z0-9][\w.+~^-]*)-(?:\d+:)?[^\s:-]+-[^\s:-]+\.(\w+)")
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DnfState:
    """The packages, as ``name.arch``, that have an update, and those that need one for safety."""

    updates: frozenset[str]
    security: frozenset[str]


def parse_updates(text: str) -> frozenset[str]:
    """Parse what ``dnf check-update`` lists, dnf4's and dnf5's.

    Both print name, version and repository; what another package replaces follows after a title,
    with what it is replaced by indented, and is no update of its own.
    """
    found = set()
    for line in text.splitlines():
        if line.startswith("Obsoleting"):
            break
        words = line.split()
        if len(words) == _COLUMNS and line[:1] != " " and _PACKAGE.fullmatch(words[0]):
            found.add(words[0])
    return frozenset(found)


def parse_advisories(text: str) -> frozenset[str]:
    """Parse what ``dnf updateinfo list`` prints: name, severity and package, and more in dnf5."""
    found = set()
    for line in text.splitlines():
        for word in line.split()[2:]:
            match = _NEVRA.fullmatch(word)
            if match is not None:
                found.add(f"{match[1]}.{match[2]}")
                break
    return frozenset(found)


@dataclass(slots=True)
class Dnf:
    """The dnf of this machine, asked again when its cache or rpm's database changed."""

    root: Path = Path("/")
    run: Callable[..., Done] = run
    _kept: Kept[DnfState] = field(default_factory=lambda: Kept(3600.0), init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own dnf."""
        return cls(paths.root)

    def present(self) -> bool:
        """Tell whether this machine's packages are dnf's."""
        return any((self.root / path.lstrip("/")).is_dir() for path in _CACHES)

    def get(self) -> DnfState | None:
        """Give the updates; None where there is no dnf after all. Raises UnavailableError."""
        files = (*DATABASES, *_CACHES)
        try:
            return self._kept.get(
                stamp(self.root / path.lstrip("/") for path in files), self._list
            )
        except MissingError:
            return None

    def refreshed(self) -> float | None:
        """Tell when metadata was last fetched, in unixtime."""
        found = []
        for path in _CACHES:
            folder = self.root / path.lstrip("/")
            try:
                with os.scandir(folder) as entries:
                    repositories = [entry.path for entry in entries if entry.is_dir()]
            except OSError:
                continue
            for repository in repositories:
                for name in ("repodata/repomd.xml", "repodata"):
                    told = stamp((Path(repository, name),))[0]
                    if told is not None:
                        found.append(told[0] / 1e9)
                        break
        return max(found, default=None)

    def _list(self) -> DnfState:
        updates = parse_updates(self._ask("check-update"))
        security = parse_advisories(self._ask("updateinfo", "list", "--security"))
        return DnfState(updates=updates, security=security & updates)

    def _ask(self, *words: str) -> str:
        root = () if self.root == Path("/") else (f"--installroot={self.root}",)
        done = self.run((*_DNF, *root, *words), timeout_seconds=_SECONDS)
        if done.code not in {0, _UPDATES}:
            reason = next(iter(done.error.strip().splitlines()), f"code {done.code}")
            raise UnavailableError(f"dnf could not tell what it would update: {reason[:200]}")
        return done.output.decode("utf-8", "replace")
