"""Report what went through network devices."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, counter, name_filter
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


@collector(name="netdev", metrics=(*COLUMNS, NO_HANDLER), options=DEVICES.options)
def collect(node: Node) -> Iterator[Sample]:
    """Report what went through network devices."""
    for device, numbers in node.proc.net_dev():
        if not node.wanted(DEVICES, device):
            continue
        for metric, number in zip(COLUMNS, numbers, strict=False):
            yield metric.at(number, device)
        # /proc/net/dev has no column for it.
        unhandled = node.sys.net_attribute(device, "statistics/rx_nohandler")
        if unhandled:
            yield NO_HANDLER.at(int(unhandled), device)
