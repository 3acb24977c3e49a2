"""Report free blocks of memory by size, which shows fragmentation."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge
from narthex_exporter.sources.memory import parse_buddyinfo

BLOCKS = gauge(
    "node_buddyinfo_blocks",
    "Count of free blocks according to size.",
    ("node", "zone", "size"),
)


@collector(name="buddyinfo", metrics=(BLOCKS,), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report free blocks of memory by size, which shows fragmentation."""
    for number, zone, blocks in parse_buddyinfo(node.proc.text("buddyinfo")):
        for size, count in enumerate(blocks):
            yield BLOCKS.at(count, number, zone, str(size))
