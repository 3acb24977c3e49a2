"""Report the kernel's own counts: interrupts, switches, forks, boot time, tasks."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Node,
    Sample,
    collector,
    counter,
    gauge,
    switch_option,
)

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

SOFTIRQS = counter("node_softirqs_total", "Number of softirq calls.", ("vector",))
# In the kernel's order; see softirq_to_name there.
_VECTORS: Final = (
    *("hi", "timer", "net_tx", "net_rx", "block"),
    *("block_iopoll", "tasklet", "sched", "hrtimer", "rcu"),
)
SOFTIRQ = switch_option("softirq", "Report node_softirqs_total.")


@collector(name="stat", metrics=(*LINES.values(), SOFTIRQS), options=(SOFTIRQ,))
def collect(node: Node) -> Iterator[Sample]:
    """Report the kernel's own counts: interrupts, switches, forks, boot time, tasks."""
    stat = node.proc.stat
    for line, metric in LINES.items():
        if line in stat.numbers:
            yield metric.at(stat.numbers[line])
    if node.setting(SOFTIRQ):
        for vector, count in zip(_VECTORS, stat.softirqs, strict=False):
            yield SOFTIRQS.at(count, vector)
