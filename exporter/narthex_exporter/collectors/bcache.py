"""Report what bcache caches."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources import bcache

_SET = ("uuid",)
_BACKING = ("uuid", "backing_device")
_CACHE = ("uuid", "cache_device")


def _gauge(name: str, help: str, labels: tuple[str, ...] = _SET) -> Metric:  # noqa: A002
    return gauge(f"node_bcache_{name}", help, labels)


def _counter(name: str, help: str, labels: tuple[str, ...]) -> Metric:  # noqa: A002
    return counter(f"node_bcache_{name}_total", help, labels)


# Of a set: the attribute, what it becomes, and what one of its units is.
SET: Final = (
    (
        "average_key_size",
        _gauge("average_key_size_sectors", "Average data per key in the btree (sectors)."),
    ),
    (
        "btree_cache_size",
        _gauge("btree_cache_size_bytes", "Memory currently used by the btree cache."),
    ),
    (
        "cache_available_percent",
        _gauge("cache_available_percent", "Percentage of cache device without dirty data."),
    ),
    ("congested", _gauge("congested", "Congestion.")),
    (
        "root_usage_percent",
        _gauge("root_usage_percent", "Percentage of the root btree node in use."),
    ),
    ("tree_depth", _gauge("tree_depth", "Depth of the btree.")),
    (
        "internal/active_journal_entries",
        _gauge("active_journal_entries", "Journal entries that are newer than the index."),
    ),
    ("internal/btree_nodes", _gauge("btree_nodes", "Total nodes in the btree.")),
    (
        "internal/cache_read_races",
        _counter("cache_read_races", "Reads whose bucket was reused while they ran.", _SET),
    ),
)
READ_DURATION = _gauge("btree_read_average_duration_seconds", "Average btree read duration.")
DIRTY = _gauge("dirty_data_bytes", "Dirty data for this backing device in the cache.", _BACKING)
# Lines of writeback_rate_debug.
RATES: Final = (
    ("target", _gauge("dirty_target_bytes", "Dirty data target of this device.", _BACKING)),
    ("rate", _gauge("writeback_rate", "Writeback rate of this device in bytes.", _BACKING)),
    (
        "proportional",
        _gauge(
            "writeback_rate_proportional_term",
            "Result of the proportional controller, part of writeback rate",
            _BACKING,
        ),
    ),
    (
        "integral",
        _gauge(
            "writeback_rate_integral_term",
            "Result of the integral controller, part of writeback rate",
            _BACKING,
        ),
    ),
    ("change", _gauge("writeback_change", "Last step of the writeback rate.", _BACKING)),
)
# Of a backing device, below stats_total.
COUNTS: Final = (
    (
        "bypassed",
        _counter("bypassed_bytes", "Amount of IO that has bypassed the cache.", _BACKING),
    ),
    ("cache_hits", _counter("cache_hits", "Hits counted per individual IO.", _BACKING)),
    ("cache_misses", _counter("cache_misses", "Misses counted per individual IO.", _BACKING)),
    (
        "cache_bypass_hits",
        _counter("cache_bypass_hits", "Hits for IO intended to skip the cache.", _BACKING),
    ),
    (
        "cache_bypass_misses",
        _counter("cache_bypass_misses", "Misses for IO intended to skip the cache.", _BACKING),
    ),
    (
        "cache_miss_collisions",
        _counter(
            "cache_miss_collisions",
            "Times that a write was faster than inserting what a miss had read.",
            _BACKING,
        ),
    ),
    (
        "cache_readaheads",
        _counter("cache_readaheads", "Count of times readahead occurred.", _BACKING),
    ),
)
CACHE: Final = (
    ("io_errors", _gauge("io_errors", "Errors, decayed by io_error_halflife.", _CACHE)),
    (
        "metadata_written",
        _counter("metadata_written_bytes", "Sum of all non data writes.", _CACHE),
    ),
    ("written", _counter("written_bytes", "Sum of all data written to the cache.", _CACHE)),
)
PRIORITIES: Final = (
    (
        "Unused",
        _gauge(
            "priority_stats_unused_percent", "Percentage of the cache without any data.", _CACHE
        ),
    ),
    ("Metadata", _gauge("priority_stats_metadata_percent", "Bcache's metadata overhead.", _CACHE)),
)
PRIORITY_STATS = Option(
    "priorityStats",
    "false",
    lambda text: {"true": True, "false": False}[text.lower()],
    "Whether to read the priorities of all buckets too, which is expensive: true or false.",
)
_GROUPS: Final = (SET, RATES, COUNTS, CACHE, PRIORITIES)
_MICRO: Final = 1e-6


@collector(
    name="bcache",
    metrics=(
        *(metric for group in _GROUPS for _, metric in group),
        READ_DURATION,
        DIRTY,
    ),
    options=(PRIORITY_STATS,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what bcache caches."""
    sets = bcache.sets(node.sys)
    if not sets:
        raise NoData("there is no bcache")
    for uuid in sets:
        yield from _values(node, uuid, SET, uuid)
        duration = bcache.size(node.sys, f"{uuid}/internal/btree_read_average_duration_us")
        if duration is not None:
            yield READ_DURATION.at(duration * _MICRO, uuid)
        backing, caches = bcache.members(node.sys, uuid)
        for device in backing:
            yield from _backing(node, uuid, device)
        for device in caches:
            yield from _cache(node, uuid, device)


def _backing(node: Node, uuid: str, device: str) -> Iterator[Sample]:
    folder = f"{uuid}/{device}"
    yield from _values(node, folder, (("dirty_data", DIRTY),), uuid, device)
    text = node.sys.text(f"fs/bcache/{folder}/writeback_rate_debug") or ""
    rates = bcache.parse_rates(text)
    for name, metric in RATES:
        if name in rates:
            yield metric.at(rates[name], uuid, device)
    yield from _values(node, f"{folder}/stats_total", COUNTS, uuid, device)


def _cache(node: Node, uuid: str, device: str) -> Iterator[Sample]:
    yield from _values(node, f"{uuid}/{device}", CACHE, uuid, device)
    if node.setting(PRIORITY_STATS):
        text = node.sys.text(f"fs/bcache/{uuid}/{device}/priority_stats") or ""
        found = bcache.parse_priorities(text)
        for name, metric in PRIORITIES:
            if name in found:
                yield metric.at(found[name], uuid, device)


def _values(
    node: Node, folder: str, wanted: tuple[tuple[str, Metric], ...], *labels: str
) -> Iterator[Sample]:
    for name, metric in wanted:
        value = bcache.size(node.sys, f"{folder}/{name}")
        if value is not None:
            yield metric.at(value, *labels)
