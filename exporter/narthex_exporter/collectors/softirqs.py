"""Report how often each CPU ran each kind of softirq."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import Node, Sample, collector, counter

COUNT: Final = counter("node_softirqs_functions_total", "Softirq counts per CPU.", ("cpu", "type"))


@collector(name="softirqs", metrics=(COUNT,), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report how often each CPU ran each kind of softirq."""
    cpus, rows = node.proc.softirqs()
    for kind, numbers in rows:
        for cpu, number in zip(cpus, numbers, strict=False):
            yield COUNT.at(number, cpu, kind)
