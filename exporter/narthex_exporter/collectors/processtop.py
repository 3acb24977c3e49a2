"""Report the programs that use most, so that last night's spike has a name."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge, limit_option
from narthex_exporter.sources.processtable import ProcessTable
from narthex_exporter.sources.processtop import ProcessTop

_LABELS = ("comm", "unit", "container")
CPU = gauge(
    "narthex_process_top_cpu_ratio",
    "CPUs that the processes of a program used since the scrape before, of the highest users.",
    _LABELS,
)
RESIDENT = gauge(
    "narthex_process_top_resident_bytes",
    "Resident memory of the processes of a program, of the highest users.",
    _LABELS,
)
IO = gauge(
    "narthex_process_top_io_bytes_per_second",
    "Bytes that the processes of a program read from and wrote to disks a second since the "
    "scrape before, of the highest users.",
    _LABELS,
)
# No Limit: that there are more programs than these is what a top is.
MOST = limit_option("number", 10, "Programs to report of each: CPU, memory, I/O.")


@collector(name="processtop", metrics=(CPU, RESIDENT, IO), options=(MOST,))
def collect(node: Node) -> Iterator[Sample]:
    """Report the programs that use most CPU, memory and I/O."""
    table, top = node.source(ProcessTable), node.source(ProcessTop)
    with table.lock:
        top.start(table)
        try:
            table.look(node.proc)
        except OSError as error:
            raise NoData("there is no /proc") from error
        busiest = top.busiest(node.setting(MOST))
    for metric, rates in ((CPU, busiest.cpu), (RESIDENT, busiest.resident), (IO, busiest.io)):
        for who, value in rates:
            yield metric.at(value, *who)
