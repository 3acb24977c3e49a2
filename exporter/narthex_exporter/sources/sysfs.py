"""Read /sys: devices and their attributes."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sysfs:
    """The attributes below ``root``."""

    root: Path = Path("/sys")

    def net_devices(self) -> list[str]:
        """Name the network devices."""
        found = []
        with os.scandir(self.root / "class/net") as entries:
            # bonding_masters is a file among the devices.
            found = [entry.name for entry in entries if entry.is_dir()]
        return sorted(found)

    def net_attribute(self, device: str, name: str) -> str | None:
        """Read one attribute of a network device; None where it has none, or is gone."""
        return self._read(f"class/net/{device}/{name}")

    def clock_sources(self) -> list[tuple[str, list[str], str]]:
        """Give number, available sources and current source of each clock."""
        base = self.root / "devices/system/clocksource"
        found = []
        for path in sorted(base.glob("clocksource*")):
            folder = path.relative_to(self.root)
            available = self._read(f"{folder}/available_clocksource")
            current = self._read(f"{folder}/current_clocksource")
            if available is not None and current is not None:
                number = path.name.removeprefix("clocksource")
                found.append((number, available.split(), current))
        return found

    def _read(self, name: str) -> str | None:
        try:
            with open(f"{self.root}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - hot path
                return file.readall().decode("utf-8", "replace").strip()
        except OSError:
            return None
