"""Report the zones of memory: watermarks and pages by use."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    gauges,
)
from narthex_exporter.sources.memory import parse_zoneinfo

_LABELS = ("node", "zone")


def _pages(name: str, help: str) -> Metric:  # noqa: A002
    return gauge(f"node_zoneinfo_{name}", help, _LABELS)


def _count(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"node_zoneinfo_{name}_total", help, _LABELS)


# The kernel's field, and what it becomes.
FIELDS: Final = {
    "nr_free_pages": _pages("nr_free_pages", "Total number of free pages in the zone"),
    "min": _pages("min_pages", "Zone watermark pages_min"),
    "low": _pages("low_pages", "Zone watermark pages_low"),
    "high": _pages("high_pages", "Zone watermark pages_high"),
    "scanned": _pages("scanned_pages", "Pages scanned since last reclaim"),
    "spanned": _pages("spanned_pages", "Total pages spanned by the zone, including holes"),
    "present": _pages("present_pages", "Physical pages existing within the zone"),
    "managed": _pages("managed_pages", "Present pages managed by the buddy system"),
    "nr_active_anon": _pages(
        "nr_active_anon_pages", "Number of anonymous pages recently more used"
    ),
    "nr_inactive_anon": _pages(
        "nr_inactive_anon_pages", "Number of anonymous pages recently less used"
    ),
    "nr_isolated_anon": _pages("nr_isolated_anon_pages", "Temporary isolated pages from anon lru"),
    "nr_anon_pages": _pages(
        "nr_anon_pages", "Number of anonymous pages currently used by the system"
    ),
    "nr_anon_transparent_hugepages": _pages(
        "nr_anon_transparent_hugepages",
        "Number of anonymous transparent huge pages currently used by the system",
    ),
    "nr_active_file": _pages("nr_active_file_pages", "Number of active pages with file-backing"),
    "nr_inactive_file": _pages(
        "nr_inactive_file_pages", "Number of inactive pages with file-backing"
    ),
    "nr_isolated_file": _pages("nr_isolated_file_pages", "Temporary isolated pages from file lru"),
    "nr_file_pages": _pages("nr_file_pages", "Number of file pages"),
    "nr_slab_reclaimable": _pages("nr_slab_reclaimable_pages", "Number of reclaimable slab pages"),
    "nr_slab_unreclaimable": _pages(
        "nr_slab_unreclaimable_pages", "Number of unreclaimable slab pages"
    ),
    "nr_mlock_stack": _pages("nr_mlock_stack_pages", "mlock()ed pages found and moved off LRU"),
    "nr_kernel_stack": _pages("nr_kernel_stacks", "Number of kernel stacks"),
    "nr_mapped": _pages("nr_mapped_pages", "Number of mapped pages"),
    "nr_dirty": _pages("nr_dirty_pages", "Number of dirty pages"),
    "nr_writeback": _pages("nr_writeback_pages", "Number of writeback pages"),
    "nr_unevictable": _pages("nr_unevictable_pages", "Number of unevictable pages"),
    "nr_shmem": _pages("nr_shmem_pages", "Number of shmem pages (included tmpfs/GEM pages)"),
    "nr_dirtied": _count("nr_dirtied", "Page dirtyings since bootup"),
    "nr_written": _count("nr_written", "Page writings since bootup"),
    "numa_hit": _count("numa_hit", "Allocated in intended node"),
    "numa_miss": _count("numa_miss", "Allocated in non intended node"),
    "numa_foreign": _count("numa_foreign", "Was intended here, hit elsewhere"),
    "numa_interleave": _count("numa_interleave", "Interleaver preferred this zone"),
    "numa_local": _count("numa_local", "Allocation from local node"),
    "numa_other": _count("numa_other", "Allocation from other node"),
}
PROTECTION = gauges(
    "node_zoneinfo_protection_{position}", "Protection array {position}. field", _LABELS
)


@collector(name="zoneinfo", metrics=(*FIELDS.values(), PROTECTION), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report the zones of memory: watermarks and pages by use."""
    for zone in parse_zoneinfo(node.proc.text("zoneinfo")):
        for field, metric in FIELDS.items():
            if field in zone.fields:
                yield metric.at(zone.fields[field], zone.node, zone.zone)
        for position, pages in enumerate(zone.protection):
            yield PROTECTION.named(position=str(position)).at(pages, zone.node, zone.zone)
