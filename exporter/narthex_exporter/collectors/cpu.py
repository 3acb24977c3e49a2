"""Report what each CPU did with its time."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, counter
from narthex_exporter.sources.procfs import CPU_MODES

SECONDS = counter(
    "node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", ("cpu", "mode")
)
GUEST = counter(
    "node_cpu_guest_seconds_total",
    "Seconds the CPUs spent in guests (VMs) for each mode.",
    ("cpu", "mode"),
)


@collector(name="cpu", metrics=(SECONDS, GUEST))
def collect(node: Node) -> Iterator[Sample]:
    """Report what each CPU did with its time."""
    for times in node.proc.stat.cpus:
        for mode, seconds in zip(CPU_MODES, times.modes, strict=True):
            yield SECONDS.at(seconds, times.cpu, mode)
        yield GUEST.at(times.guest, times.cpu, "user")
        yield GUEST.at(times.guest_nice, times.cpu, "nice")
