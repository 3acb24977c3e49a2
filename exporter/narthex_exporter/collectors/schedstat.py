"""Report how long tasks ran and waited on each CPU."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter
from narthex_exporter.sources.cpus import parse_schedstat

RUNNING = counter(
    "node_schedstat_running_seconds_total",
    "Number of seconds CPU spent running a process.",
    ("cpu",),
)
WAITING = counter(
    "node_schedstat_waiting_seconds_total",
    "Number of seconds spent by processing waiting for this CPU.",
    ("cpu",),
)
TIMESLICES = counter(
    "node_schedstat_timeslices_total", "Number of timeslices executed by CPU.", ("cpu",)
)
_NANO: Final = 1e9


@collector(name="schedstat", metrics=(RUNNING, WAITING, TIMESLICES))
def collect(node: Node) -> Iterator[Sample]:
    """Report how long tasks ran and waited on each CPU."""
    try:
        text = node.proc.text("schedstat")
    except FileNotFoundError as error:
        raise NoData("this kernel keeps no scheduler statistics") from error
    for cpu, running, waiting, timeslices in parse_schedstat(text):
        yield RUNNING.at(running / _NANO, cpu)
        yield WAITING.at(waiting / _NANO, cpu)
        yield TIMESLICES.at(timeslices, cpu)
