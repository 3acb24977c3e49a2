"""Report the kernel's slab caches."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge, name_filter
from narthex_exporter.sources.memory import parse_slabinfo

_SLAB = ("slab",)
# In the order of the kernel's columns.
COLUMNS = (
    gauge(
        "node_slabinfo_active_objects",
        "The number of objects that are currently active (i.e., in use).",
        _SLAB,
    ),
    gauge(
        "node_slabinfo_objects",
        "The total number of allocated objects (i.e., objects that are both in use and not in"
        " use).",
        _SLAB,
    ),
    gauge("node_slabinfo_object_size_bytes", "The size of objects in this slab, in bytes.", _SLAB),
    gauge("node_slabinfo_objects_per_slab", "The number of objects stored in each slab.", _SLAB),
    gauge("node_slabinfo_pages_per_slab", "The number of pages allocated for each slab.", _SLAB),
)
SLABS = name_filter("slabs", "Slabs", include=".*")


@collector(name="slabinfo", metrics=COLUMNS, enabled=False, privileged=True, options=SLABS.options)
def collect(node: Node) -> Iterator[Sample]:
    """Report the kernel's slab caches."""
    for slab, numbers in parse_slabinfo(node.proc.text("slabinfo")):
        if node.wanted(SLABS, slab):
            for metric, number in zip(COLUMNS, numbers, strict=True):
                yield metric.at(number, slab)
