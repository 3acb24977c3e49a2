"""Report the kernel's own counts: interrupts, switches, forks, boot time, tasks."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import Node, Sample, collector, counter, gauge

# The line of /proc/stat, and what it becomes.
LINES: Final = {
    "intr": counter("node_intr_total", "Total number of interrupts serviced."),
    "ctxt": counter("node_context_switches_total", "Total number of context switches."),
    "processes": counter("node_forks_total", "Total number of forks."),
    "btime": gauge("node_boot_time_seconds", "Node boot time, in unixtime."),
    "procs_running": gauge("node_procs_running", "Number of processes in runnable state."),
    "procs_blocked": gauge(
        "node_procs_blocked", "Number of processes blocked waiting for I/O to complete."
    ),
}


@collector(name="stat", metrics=tuple(LINES.values()))
def collect(node: Node) -> Iterator[Sample]:
    """Report the kernel's own counts: interrupts, switches, forks, boot time, tasks."""
    numbers = node.proc.stat.numbers
    for line, metric in LINES.items():
        if line in numbers:
            yield metric.sample(numbers[line])
