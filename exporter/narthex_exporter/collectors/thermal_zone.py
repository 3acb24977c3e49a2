"""Report temperatures of thermal zones, and how hard cooling devices work."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Reading, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

ZONE: Final = gauge("node_thermal_zone_temp", "Zone temperature in Celsius.", ("zone", "type"))
STATE: Final = gauge(
    "node_cooling_device_cur_state",
    "Current throttle state of the cooling device.",
    ("name", "type"),
)
MOST: Final = gauge(
    "node_cooling_device_max_state",
    "Maximum throttle state of the cooling device.",
    ("name", "type"),
)
_FOLDER: Final = "class/thermal"
_ZONE: Final = "thermal_zone"
_COOLER: Final = "cooling_device"
_MILLI: Final = 1000


@collector(name="thermal_zone", metrics=(ZONE, STATE, MOST))
def collect(node: Node) -> Iterator[Sample]:
    """Report temperatures of thermal zones, and how hard cooling devices work."""
    yield from samples(node.sys, remembered(node, "thermal zones", lambda: _find(node)))


def _find(node: Node) -> list[Reading] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    readings = []
    for name in names:
        folder = f"{_FOLDER}/{name}"
        kind = node.sys.text(f"{folder}/type") or ""
        if name.startswith(_ZONE):
            labels = (name.removeprefix(_ZONE), kind)
            readings.append(Reading(f"{folder}/temp", ZONE, labels, per=_MILLI))
        elif name.startswith(_COOLER):
            labels = (name.removeprefix(_COOLER), kind)
            readings.append(Reading(f"{folder}/cur_state", STATE, labels))
            readings.append(Reading(f"{folder}/max_state", MOST, labels))
    return readings
