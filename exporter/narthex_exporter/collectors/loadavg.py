"""Report the load average."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

LOAD = tuple(gauge(f"node_load{w}", f"{w}m load average.") for w in (1, 5, 15))


@collector(name="loadavg", metrics=LOAD)
def collect(node: Node) -> Iterator[Sample]:
    """Report the load average."""
    for metric, value in zip(LOAD, node.proc.loadavg(), strict=True):
        yield metric.sample(value)
