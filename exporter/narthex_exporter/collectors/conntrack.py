"""Report how full the table of tracked connections is."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge

ENTRIES: Final = gauge(
    "node_nf_conntrack_entries",
    "Number of currently allocated flow entries for connection tracking.",
)
LIMIT: Final = gauge(
    "node_nf_conntrack_entries_limit", "Maximum size of connection tracking table."
)
# By the kernel's names of columns. They count, but are gauges in node_exporter.
STATISTICS: Final = {
    column: gauge(f"node_nf_conntrack_stat_{column}", text)
    for column, text in (
        ("drop", "Number of packets dropped due to conntrack failure."),
        (
            "early_drop",
            "Number of dropped conntrack entries to make room for new ones at the maximum.",
        ),
        ("found", "Number of searched entries which were successful."),
        (
            "ignore",
            "Number of packets seen which are already connected to a conntrack entry.",
        ),
        ("insert", "Number of entries inserted into the list."),
        (
            "insert_failed",
            "Number of entries for which list insertion was attempted but failed.",
        ),
        ("invalid", "Number of packets seen which can not be tracked."),
        (
            "search_restart",
            "Number of conntrack table lookups restarted due to hashtable resizes.",
        ),
    )
}


@collector(name="conntrack", metrics=(ENTRIES, LIMIT, *STATISTICS.values()))
def collect(node: Node) -> Iterator[Sample]:
    """Report how full the table of tracked connections is."""
    try:
        entries, limit = node.proc.conntrack()
        yield ENTRIES.at(entries)
        yield LIMIT.at(limit)
        counts = node.proc.conntrack_stat()
    except FileNotFoundError as error:
        raise NoData("connections are not tracked") from error
    for column, metric in STATISTICS.items():
        if column in counts:
            yield metric.at(counts[column])
