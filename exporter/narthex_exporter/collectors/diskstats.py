"""Report what block devices did."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    pattern_option,
)

_LABELS = ("device",)
# How many of the kernel's units make one of ours.
_SECTOR: Final = 1 / 512
_MILLI: Final = 1000.0


def _count(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"node_disk_{name}_total", help, _LABELS)


# In the order of the kernel's columns (its Documentation/admin-guide/iostats.rst), with its units.
COLUMNS: Final = (
    (_count("reads_completed", "The total number of reads completed successfully."), 1.0),
    (_count("reads_merged", "The total number of reads merged."), 1.0),
    (_count("read_bytes", "The total number of bytes read successfully."), _SECTOR),
    (_count("read_time_seconds", "The total number of seconds spent by all reads."), _MILLI),
    (_count("writes_completed", "The total number of writes completed successfully."), 1.0),
    (_count("writes_merged", "The number of writes merged."), 1.0),
    (_count("written_bytes", "The total number of bytes written successfully."), _SECTOR),
    (_count("write_time_seconds", "The total number of seconds spent by all writes."), _MILLI),
    (gauge("node_disk_io_now", "The number of I/Os currently in progress.", _LABELS), 1.0),
    (_count("io_time_seconds", "Total seconds spent doing I/Os."), _MILLI),
    (_count("io_time_weighted_seconds", "The weighted # of seconds spent doing I/Os."), _MILLI),
    (_count("discards_completed", "The total number of discards completed successfully."), 1.0),
    (_count("discards_merged", "The total number of discards merged."), 1.0),
    (_count("discarded_sectors", "The total number of sectors discarded successfully."), 1.0),
    (_count("discard_time_seconds", "The total number of seconds spent by all discards."), _MILLI),
    (_count("flush_requests", "The total number of flush requests completed successfully."), 1.0),
    (
        _count(
            "flush_requests_time_seconds",
            "The total number of seconds spent by all flush requests.",
        ),
        _MILLI,
    ),
)
DEVICE_EXCLUDE = pattern_option(
    "device-exclude",
    r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$",
    "Block devices to leave out: by default partitions, loops and RAM disks.",
)


@collector(
    name="diskstats",
    metrics=tuple(metric for metric, _ in COLUMNS),
    options=(DEVICE_EXCLUDE,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what block devices did."""
    exclude = node.setting(DEVICE_EXCLUDE)
    for disk in node.proc.diskstats():
        if exclude.search(disk.device):
            continue
        # Old kernels have fewer columns than we know, newer ones may have more.
        for (metric, units), number in zip(COLUMNS, disk.numbers, strict=False):
            yield metric.at(number / units, disk.device)
