"""Report the node's clock."""

import time
from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

NOW = gauge("node_time_seconds", "System time in seconds since epoch (1970).")
OFFSET = gauge(
    "node_time_zone_offset_seconds", "System time zone offset in seconds.", ("time_zone",)
)
AVAILABLE = gauge(
    "node_time_clocksource_available_info",
    "Available clocksources read from '/sys/devices/system/clocksource'.",
    ("device", "clocksource"),
)
CURRENT = gauge(
    "node_time_clocksource_current_info",
    "Current clocksource read from '/sys/devices/system/clocksource'.",
    ("device", "clocksource"),
)


@collector(name="time", metrics=(NOW, OFFSET, AVAILABLE, CURRENT))
def collect(node: Node) -> Iterator[Sample]:
    """Report the node's clock."""
    now = time.time()
    zone = time.localtime(now)
    yield NOW.at(now)
    yield OFFSET.at(zone.tm_gmtoff, zone.tm_zone)
    for device, available, current in node.sys.clock_sources():
        for name in available:
            yield AVAILABLE.at(1, device, name)
        yield CURRENT.at(1, device, current)
