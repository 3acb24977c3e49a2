"""Report what has tainted the kernel."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.security import taint_names

TAINTED = gauge(
    "narthex_kernel_tainted",
    "What /proc/sys/kernel/tainted tells: the sum of the flags set, 0 is an untainted kernel.",
)
TAINT = gauge("narthex_kernel_taint", "Is 1 for each taint flag that is set.", ("flag",))


@collector(name="tainted", metrics=(TAINTED, TAINT))
def collect(node: Node) -> Iterator[Sample]:
    """Report what has tainted the kernel."""
    try:
        mask = int(node.proc.bytes("sys/kernel/tainted"))
    except FileNotFoundError as error:
        raise NoData("this kernel does not tell whether it is tainted") from error
    yield TAINTED.at(mask)
    for flag in taint_names(mask):
        yield TAINT.at(1, flag)
