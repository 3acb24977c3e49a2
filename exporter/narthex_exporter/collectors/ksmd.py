"""Report what the kernel's same-page merging did."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter, gauge

# The file below /sys/kernel/mm/ksm, what it becomes, and how many of its units make one of ours.
FILES: Final = (
    (
        "full_scans",
        counter(
            "node_ksmd_full_scans_total", "How many times all mergeable areas have been scanned."
        ),
        1,
    ),
    (
        "general_profit",
        gauge("node_ksmd_general_profit_bytes", "How many bytes merging saves, less its cost."),
        1,
    ),
    (
        "merge_across_nodes",
        gauge(
            "node_ksmd_merge_across_nodes",
            "Specifies if pages from different NUMA nodes can be merged.",
        ),
        1,
    ),
    (
        "pages_shared",
        gauge("node_ksmd_pages_shared", "How many shared pages are being used."),
        1,
    ),
    (
        "pages_sharing",
        gauge(
            "node_ksmd_pages_sharing",
            "How many more sites are sharing them i.e. how much saved.",
        ),
        1,
    ),
    (
        "pages_to_scan",
        gauge("node_ksmd_pages_to_scan", "How many pages to scan before ksmd goes to sleep."),
        1,
    ),
    (
        "pages_unshared",
        gauge(
            "node_ksmd_pages_unshared",
            "How many pages unique but repeatedly checked for merging.",
        ),
        1,
    ),
    (
        "pages_volatile",
        gauge(
            "node_ksmd_pages_volatile",
            "How many pages changing too fast to be placed in a tree.",
        ),
        1,
    ),
    ("run", gauge("node_ksmd_run", "The status of ksmd. stopped = 0, running = 1"), 1),
    (
        "sleep_millisecs",
        gauge("node_ksmd_sleep_seconds", "How many seconds ksmd should sleep before next scan."),
        1000,
    ),
)


@collector(name="ksmd", metrics=tuple(metric for _, metric, _ in FILES), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report what the kernel's same-page merging did."""
    found = 0
    for file, metric, units in FILES:
        number = node.sys.number(f"kernel/mm/ksm/{file}")
        if number is not None:
            found += 1
            yield metric.at(number if units == 1 else number / units)
    if not found:
        raise NoData("this kernel merges no pages (KSM)")
