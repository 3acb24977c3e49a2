"""Read /sys: devices and their attributes."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from narthex_exporter.sources.files import Files


@dataclass(frozen=True, slots=True)
class Sysfs:
    """The attributes below ``root``."""

    root: Path = Path("/sys")
    files: Files = field(default_factory=Files)
    _base: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base", f"{self.root}/")

    def text(self, name: str) -> str | None:
        """Read an attribute, stripped; None where there is none, or it tells nothing now."""
        try:
            return self.files.read(self._base + name).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Read an attribute that is a whole number; None where it is none."""
        text = self.text(name)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def names(self, folder: str) -> list[str]:
        """Name what is in a folder, sorted; nothing where there is no such folder."""
        try:
            return sorted(os.listdir(f"{self.root}/{folder}"))  # noqa: PTH208 - hot path
        except OSError:
            return []

    def devices(self, folder: str) -> list[str] | None:
        """Name the devices of a class, sorted; None where this kernel has no such class."""
        try:
            return sorted(os.listdir(f"{self.root}/{folder}"))  # noqa: PTH208 - hot path
        except OSError:
            return None

    def files_in(self, folder: str) -> list[str]:
        """Name the attributes in a folder, sorted: no folders, no links to them."""
        try:
            with os.scandir(f"{self.root}/{folder}") as entries:
                return sorted(entry.name for entry in entries if not entry.is_dir())
        except OSError:
            return []

    def target(self, path: str) -> str | None:
        """Say where a link leads, as a path without links; None where it leads nowhere."""
        try:
            return os.path.realpath(f"{self.root}/{path}", strict=True)
        except OSError:
            return None

    def net_devices(self) -> list[str]:
        """Name the network devices."""
        found = []
        with os.scandir(self.root / "class/net") as entries:
            # bonding_masters is a file among the devices.
            found = [entry.name for entry in entries if entry.is_dir()]
        return sorted(found)

    def net_attribute(self, device: str, name: str) -> str | None:
        """Read one attribute of a network device; None where it has none, or is gone."""
        return self.text(f"class/net/{device}/{name}")

    def clock_sources(self) -> list[tuple[str, list[str], str]]:
        """Give number, available sources and current source of each clock."""
        base = "devices/system/clocksource"
        found = []
        for name in self.names(base):
            if not name.startswith("clocksource"):
                continue
            folder = f"{base}/{name}"
            available = self.text(f"{folder}/available_clocksource")
            current = self.text(f"{folder}/current_clocksource")
            if available is not None and current is not None:
                number = name.removeprefix("clocksource")
                found.append((number, available.split(), current))
        return found
