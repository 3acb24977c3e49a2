"""Find the chips of /sys/class/hwmon, with their sensors, and name both as node_exporter does."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.sysfs import Sysfs

_FOLDER: Final = "class/hwmon"
# The kernel's Documentation/hwmon/sysfs-interface.rst: <type><number>_<item>.
_FILE: Final = re.compile(r"([^0-9]+)([0-9]*)(?:_(.+))?")
_ODD: Final = re.compile(r"[^a-z0-9:_]")
KINDS: Final = frozenset(
    {
        *("beep_enable", "cpu", "curr", "energy", "fan", "freq", "humidity", "in", "intrusion"),
        *("power", "pwm", "temp", "update_interval", "vrm"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One sensor of a chip; ``paths`` below /sys by item, which is empty for a bare file."""

    kind: str
    name: str
    label: str | None
    paths: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip: ``name`` is unique and steady, ``driver`` is what the driver calls itself."""

    name: str
    driver: str
    sensors: tuple[Sensor, ...]


def clean(name: str) -> str:
    """Make a name one that labels and metrics have: lower case, with underscores."""
    return _ODD.sub("_", name.lower()).strip("_")


def chips(sys: Sysfs) -> list[Chip] | None:
    """Find all chips; None where this kernel has none of the kind."""
    folders = sys.devices(_FOLDER)
    if folders is None:
        return None
    drivers = {folder: sys.text(f"{_FOLDER}/{folder}/name") or "" for folder in folders}
    stems = {folder: _stem(sys, folder, drivers[folder]) for folder in folders}
    same = Counter(stems.values())
    same_driver = Counter((stems[folder], drivers[folder]) for folder in folders)
    found = []
    for folder in folders:
        name = stems[folder]
        if same[name] > 1:
            # Two chips of one device: the driver's name tells them apart, or else the number does.
            driver = clean(drivers[folder])
            alone = driver and same_driver[name, drivers[folder]] == 1
            name = f"{name}_{driver if alone else clean(folder)}"
        sensors = tuple(_sensors(sys, f"{_FOLDER}/{folder}"))
        found.append(Chip(name=name, driver=clean(drivers[folder]), sensors=sensors))
    return found


def _stem(sys: Sysfs, folder: str, driver: str) -> str:
    """Name a chip by its device, which is steadier than the number; else by its driver."""
    device = sys.target(f"{_FOLDER}/{folder}/device")
    if device is not None:
        parent, own = device.split("/")[-2:]
        if clean(own):
            return f"{clean(parent)}_{clean(own)}".lstrip("_")
    return clean(driver) or clean(folder)


def _sensors(sys: Sysfs, folder: str) -> Iterator[Sensor]:
    kinds: dict[str, str] = {}
    paths: dict[str, dict[str, str]] = {}
    # Old drivers have their attributes in the device's folder, not in the chip's.
    for place in (folder, f"{folder}/device"):
        for file in sys.files_in(place):
            match = _FILE.fullmatch(file)
            if match is None or match[1] not in KINDS:
                continue
            name = f"{match[1]}{int(match[2] or 0)}"
            kinds[name] = match[1]
            paths.setdefault(name, {})[match[3] or ""] = f"{place}/{file}"
    for name, items in paths.items():
        label = sys.text(items.pop("label")) if "label" in items else None
        yield Sensor(kind=kinds[name], name=name, label=label, paths=items)
