"""Report what went through network devices."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Node,
    Sample,
    collector,
    counter,
    limit_option,
    name_filter,
)
from narthex_exporter.sources.procfs import NET_COLUMNS

COLUMNS = tuple(
    counter(f"node_network_{name}_total", f"Network device statistic {name}.", ("device",))
    for name in NET_COLUMNS
)
NO_HANDLER = counter(
    "node_network_receive_nohandler_total",
    "Network device statistic receive_nohandler.",
    ("device",),
)
DEVICES = name_filter("device", "Network devices")
DEVICE_EXCLUDE = DEVICES.exclude
MAX = limit_option("max", 100, "How many devices to report at most.")


@collector(name="netdev", metrics=(*COLUMNS, NO_HANDLER), options=(*DEVICES.options, MAX))
def collect(node: Node) -> Iterator[Sample]:
    """Report what went through network devices."""
    include, exclude = node.setting(DEVICES.include), node.setting(DEVICES.exclude)
    found = [
        (device, numbers)
        for device, numbers in node.proc.net_dev()
        if include.search(device) and not exclude.search(device)
    ]
    for device, numbers in node.capped(MAX, found):
        for metric, number in zip(COLUMNS, numbers, strict=False):
            yield metric.at(number, device)
        # /proc/net/dev has no column for it.
        unhandled = node.sys.net_attribute(device, "statistics/rx_nohandler")
        if unhandled:
            yield NO_HANDLER.at(int(unhandled), device)
