"""Report how memory is used."""

from collections.abc import Iterator
from functools import cache

from narthex_exporter.collectors.spec import Metric, Node, Sample, collector, gauges

BYTES = gauges("node_memory_{field}_bytes", "Memory information field {field}_bytes.")
PAGES = gauges("node_memory_{field}", "Memory information field {field}.")


@collector(name="meminfo", metrics=(BYTES, PAGES))
def collect(node: Node) -> Iterator[Sample]:
    """Report how memory is used."""
    for name, number, kilobytes in node.proc.meminfo():
        yield _metric(name, kilobytes).at(number * 1024 if kilobytes else number)


@cache
def _metric(name: str, kilobytes: bool) -> Metric:  # noqa: FBT001 - part of the key
    field = name.replace("(", "_").replace(")", "")
    return (BYTES if kilobytes else PAGES).named(field=field)
