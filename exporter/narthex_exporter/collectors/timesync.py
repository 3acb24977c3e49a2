"""Report whether the clock is kept right, and by whom."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge
from narthex_exporter.sources.timesync import Timesync

SYNCHRONIZED = gauge(
    "narthex_time_synchronized",
    "Whether a source says that the clock is synchronized; the kernel is one of them.",
    ("source",),
)
LAST = gauge(
    "narthex_time_last_synchronized_timestamp_seconds",
    "When a source was told the time last, in unixtime.",
    ("source",),
)
OFFSET = gauge(
    "narthex_time_offset_seconds",
    "How far the clock is from a source's time, without a sign.",
    ("source",),
)


@collector(
    name="timesync",
    metrics=(SYNCHRONIZED, LAST, OFFSET),
    every_seconds=60,
    limit_seconds=25,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report whether the clock is kept right, and by whom."""
    for keeper in node.source(Timesync).keepers():
        yield SYNCHRONIZED.at(int(keeper.synchronized), keeper.source)
        if keeper.last is not None:
            yield LAST.at(keeper.last, keeper.source)
        if keeper.offset is not None:
            yield OFFSET.at(keeper.offset, keeper.source)
