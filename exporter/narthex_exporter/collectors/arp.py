"""Report how many neighbours are known by ARP."""

from collections import Counter
from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge, name_filter

ENTRIES = gauge("node_arp_entries", "ARP entries by device.", ("device",))
DEVICES = name_filter("device", "Network devices")


@collector(name="arp", metrics=(ENTRIES,), options=DEVICES.options)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many neighbours are known by ARP."""
    for device, number in Counter(node.proc.arp_devices()).items():
        if node.wanted(DEVICES, device):
            yield ENTRIES.at(number, device)
