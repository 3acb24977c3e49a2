"""Ask rpm how many packages are installed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import Done, run

# Where distributions keep the database, and the file in it that each change touches.
DATABASES: Final = tuple(
    f"{folder}/{file}"
    for folder in ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
    for file in ("rpmdb.sqlite", "Packages.db", "Packages")
)
# Keys that rpm trusts stand among the packages.
_KEY: Final = b"gpg-pubkey"
_SECONDS: Final = 60.0


@dataclass(slots=True)
class Rpm:
    """The database below ``root``, asked again only when it changed."""

    root: Path = Path("/")
    run: Callable[..., Done] = run
    _kept: Kept[int] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own database."""
        return cls(paths.root)

    def databases(self) -> list[Path]:
        """Give the database's files that there are."""
        found = (self.root / path.lstrip("/") for path in DATABASES)
        return [path for path in found if path.exists()]

    def installed(self) -> int | None:
        """Count the installed packages; None without a database. Raises UnavailableError."""
        paths = self.databases()
        return self._kept.get(stamp(paths), self._count) if paths else None

    def _count(self) -> int:
        done = self.run(
            ("rpm", "--root", str(self.root), "-qa", "--qf", "%{NAME}\\n"),
            timeout_seconds=_SECONDS,
        )
        if done.code:
            raise UnavailableError(f"rpm did not list its packages: {done.error.strip()[:200]}")
        return sum(name != _KEY for name in done.output.split())
