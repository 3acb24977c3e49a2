"""Tell which kernels are installed, and whether the running one is the newest."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths

_RELEASE: Final = re.compile(r"(\d+(?:[.-]\d+)*)(.*)")
# What tells builds of one flavour apart: numbers, and a distribution's mark as in +deb13.
_BUILD: Final = re.compile(r"\+\w+|\d+")


def parse_release(release: str) -> tuple[tuple[int, ...], str] | None:
    """Split ``6.1.0-25-cloud-amd64`` into numbers to compare and the flavour.

    None where it does not begin with a number.
    """
    match = _RELEASE.fullmatch(release)
    if match is None:
        return None
    numbers = tuple(map(int, re.split(r"[.-]", match[1])))
    return numbers, _BUILD.sub("", match[2])


def is_newest(running: str, installed: Iterable[str]) -> bool | None:
    """Tell whether no newer kernel of the running one's flavour is installed.

    None where none of that flavour is: then the kernel comes from elsewhere, as in a container.
    """
    now = parse_release(running)
    known = [found for found in map(parse_release, installed) if found is not None]
    if now is None:
        return None
    numbers, flavour = now
    others = [other for other, kind in known if kind == flavour]
    return max(others) <= numbers if others else None


@dataclass(slots=True)
class Kernels:
    """What lies below /lib/modules and can be booted, listed again only when that changed."""

    root: Path = Path("/")
    _kept: Kept[tuple[str, ...]] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own kernels."""
        return cls(paths.root)

    def installed(self) -> tuple[str, ...]:
        """Name the releases whose modules and image are both there."""
        return self._kept.get(stamp((self.root / "lib/modules", self.root / "boot")), self._list)

    def _list(self) -> tuple[str, ...]:
        modules = self.root / "lib/modules"
        try:
            names = sorted(os.listdir(modules))  # noqa: PTH208 - names are wanted
        except OSError:
            return ()
        return tuple(
            name
            for name in names
            if (self.root / f"boot/vmlinuz-{name}").exists()
            or (modules / name / "vmlinuz").exists()
        )
