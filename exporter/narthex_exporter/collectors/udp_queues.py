"""Report how many bytes wait in the queues of UDP sockets."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge

QUEUES: Final = gauge(
    "node_udp_queues",
    "Number of allocated memory in the kernel for UDP datagrams in bytes.",
    ("queue", "ip"),
)


@collector(name="udp_queues", metrics=(QUEUES,))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many bytes wait in the queues of UDP sockets."""
    found = False
    for file, version in (("udp", "v4"), ("udp6", "v6")):
        try:
            sent, received = node.proc.udp_queues(file)
        except FileNotFoundError:
            continue  # IPv6 may be off
        found = True
        yield QUEUES.at(sent, "tx", version)
        yield QUEUES.at(received, "rx", version)
    if not found:
        raise NoData("this kernel has no UDP")
