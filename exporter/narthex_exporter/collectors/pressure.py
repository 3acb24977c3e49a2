"""Report how long tasks waited for CPU, memory and I/O."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter

_WAITING: Final = "Total time in seconds that processes have waited for {}."
_STALLED: Final = "Total time in seconds no process could make progress due to {}."
# The file below /proc/pressure, its line, and what it becomes.
LINES: Final = (
    (
        "cpu",
        "some",
        counter("node_pressure_cpu_waiting_seconds_total", _WAITING.format("CPU time")),
    ),
    ("io", "some", counter("node_pressure_io_waiting_seconds_total", _WAITING.format("I/O"))),
    (
        "io",
        "full",
        counter("node_pressure_io_stalled_seconds_total", _STALLED.format("I/O congestion")),
    ),
    (
        "memory",
        "some",
        counter("node_pressure_memory_waiting_seconds_total", _WAITING.format("memory")),
    ),
    (
        "memory",
        "full",
        counter(
            "node_pressure_memory_stalled_seconds_total", _STALLED.format("memory congestion")
        ),
    ),
    (
        "irq",
        "full",
        counter("node_pressure_irq_stalled_seconds_total", _STALLED.format("IRQ congestion")),
    ),
)


@collector(name="pressure", metrics=tuple(metric for _, _, metric in LINES))
def collect(node: Node) -> Iterator[Sample]:
    """Report how long tasks waited for CPU, memory and I/O."""
    found = {name: _pressure(node, name) for name in dict.fromkeys(name for name, _, _ in LINES)}
    if not any(found.values()):
        raise NoData("this kernel does not measure pressure (PSI)")
    for name, line, metric in LINES:
        if line in found[name]:
            yield metric.sample(found[name][line])


def _pressure(node: Node, name: str) -> dict[str, float]:
    try:
        return node.proc.pressure(name)
    except OSError:
        return {}  # absent, or compiled in and not turned on (EOPNOTSUPP)
