"""Report how the memory of each NUMA node is used."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    NoData,
    Node,
    Sample,
    collector,
    gauges,
)
from narthex_exporter.sources.memory import numa_nodes, parse_numa_meminfo, parse_numastat

FIELD = gauges("node_memory_numa_{field}", "Memory information field {field}.", ("node",))
COUNT = Family(
    "node_memory_numa_{field}_total",
    Kind.COUNTER,
    "Memory information field {field}_total.",
    ("node",),
)


@collector(name="meminfo_numa", metrics=(FIELD, COUNT), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report how the memory of each NUMA node is used."""
    found = list(numa_nodes(node.sys))
    if not found:
        raise NoData("this kernel shows no NUMA nodes")
    for number, meminfo, numastat in found:
        for name, value in parse_numa_meminfo(meminfo):
            field = name.replace("(", "_").replace(")", "")
            yield FIELD.named(field=field).at(value, number)
        for field, value in parse_numastat(numastat):
            yield COUNT.named(field=field).at(value, number)
