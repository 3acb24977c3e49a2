"""Ask apt what it would upgrade and remove, without a lock, the network or a change."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.dpkg import STATUS
from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import Done, run

# What apt's answer depends on; a folder's time tells of files that came and went.
_DEPENDS: Final = (
    STATUS,
    "/var/lib/apt/lists",
    "/var/lib/apt/extended_states",
    "/etc/apt/preferences",
    "/etc/apt/preferences.d",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
)
# The best evidence of the last `apt update` first.
_REFRESHED: Final = (
    "/var/lib/apt/periodic/update-success-stamp",
    "/var/lib/apt/periodic/update-stamp",
    "/var/lib/apt/lists/partial",
    "/var/lib/apt/lists",
)
_SIMULATE: Final = (
    "apt-get",
    "--quiet=2",
    "--just-print",
    "--option=Debug::NoLocking=true",
    "--option=Acquire::Languages=none",
    "--option=APT::Get::Show-User-Simulation-Note=false",
)
# Root's apt would write its caches anew where they are old; another user's cannot. Never
# /dev/null here: apt sets the mode of what it writes to.
_NO_CACHES: Final = ("--option=Dir::Cache::pkgcache=", "--option=Dir::Cache::srcpkgcache=")
# Inst name [old] (new Origin:version/archive, Origin:version/archive [arch]) …
_UPGRADE: Final = re.compile(r"Inst (\S+) \[[^\]]*\] \((\S+) (.*?) ?\[([^\]]+)\]\)")
_REMOVAL: Final = "Remv "
_LISTS: Final = "var/lib/apt/lists"
_MOST_RELEASES: Final = 500
_HEAD_BYTES: Final = 16 << 10
# With these begins what is long in a Release file.
_SUMS: Final = frozenset({"MD5Sum", "SHA1", "SHA256", "SHA512"})
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One package with a newer version; its ``origin`` is several ones joined by commas."""

    package: str
    origin: str
    arch: str
    security: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AptState:
    """What apt would do, as if nothing were on hold."""

    upgrades: tuple[Upgrade, ...]
    removable: int


def parse_upgrades(text: str, origins: Mapping[str, str] | None = None) -> list[Upgrade]:
    """Parse the simulation of an upgrade; new packages are none, and other lines are skipped.

    ``origins`` says how to write what apt writes as label:version/archive.
    """
    names = origins or {}
    found = []
    for line in text.splitlines():
        match = _UPGRADE.match(line)
        if match is not None:
            package, _, written, arch = match.groups()
            parts = [part.strip() for part in written.split(",")]
            origin = ",".join(sorted({names.get(part, part) for part in parts}))
            security = any(map(_is_security, parts))
            found.append(Upgrade(package.partition(":")[0], origin, arch, security))
    return found


def _is_security(origin: str) -> bool:
    return origin.endswith(("-security", "-security-updates")) or origin.startswith(
        ("Debian-Security:", "UbuntuESM")
    )


def parse_release(text: str) -> tuple[str, str] | None:
    """Parse the head of a Release file: what apt writes, and origin:codename/archive.

    The second is how the textfile script, and python-apt, name an archive. None without a suite.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not value and key in _SUMS:
            break
        found.setdefault(key, value.strip())
    suite = found.get("Suite", "")
    if not suite:
        return None
    label = found.get("Label", "") and found["Label"] + ":"
    version = found.get("Version", "") and found["Version"] + "/"
    return (
        f"{label}{version}{suite}",
        f"{found.get('Origin', '')}:{found.get('Codename', '')}/{suite}",
    )


def count_removals(text: str) -> int:
    """Count what a simulation would remove."""
    return sum(line.startswith(_REMOVAL) for line in text.splitlines())


@dataclass(slots=True)
class Apt:
    """The apt of the machine below ``root``, asked again only when its files changed."""

    root: Path = Path("/")
    run: Callable[..., Done] = run
    # Phased updates come due by the time alone.
    _kept: Kept[AptState] = field(default_factory=lambda: Kept(6 * 3600.0), init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own apt."""
        return cls(paths.root)

    def present(self) -> bool:
        """Tell whether this machine's packages are dpkg's."""
        return (self.root / STATUS.lstrip("/")).exists()

    def get(self) -> AptState:
        """Give what apt would do. Raises UnavailableError."""
        return self._kept.get(
            stamp(self.root / path.lstrip("/") for path in _DEPENDS), self._simulate
        )

    def refreshed(self) -> float | None:
        """Tell when the lists were last fetched, in unixtime; None where nothing tells."""
        for path in _REFRESHED:
            try:
                return (self.root / path.lstrip("/")).stat().st_mtime
            except OSError:
                continue
        return None

    def _simulate(self) -> AptState:
        # What is held has its upgrade pending too, and is told apart by dpkg's list.
        upgrades = parse_upgrades(self._ask("--ignore-hold", "dist-upgrade"), self._origins())
        return AptState(
            upgrades=tuple(upgrades), removable=count_removals(self._ask("autoremove"))
        )

    def _origins(self) -> dict[str, str]:
        found = []
        for path in sorted((self.root / _LISTS).glob("*Release"))[:_MOST_RELEASES]:
            try:
                with path.open("rb") as file:
                    head = file.read(_HEAD_BYTES)
            except OSError:
                continue
            found.append(parse_release(head.decode("utf-8", "replace")))
        return dict(filter(None, found))

    def _ask(self, *words: str) -> str:
        options: tuple[str, ...] = _NO_CACHES if os.geteuid() == 0 else ()
        if self.root != Path("/"):
            # Not RootDir: with it an empty name for a cache would mean that folder itself.
            status = self.root / STATUS.lstrip("/")
            options += (f"--option=Dir={self.root}/", f"--option=Dir::State::status={status}")
        done = self.run((*_SIMULATE, *options, *words), timeout_seconds=_SECONDS)
        if done.code:
            lines = done.error.splitlines()
            reason = next((line for line in lines if line[:2] == "E:"), f"code {done.code}")
            raise UnavailableError(f"apt-get could not tell what it would do: {reason[:200]}")
        return done.output.decode("utf-8", "replace")
