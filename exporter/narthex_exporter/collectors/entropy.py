"""Report how much entropy the kernel's random generator has."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge

AVAILABLE = gauge("node_entropy_available_bits", "Bits of available entropy.")
POOL_SIZE = gauge("node_entropy_pool_size_bits", "Bits of entropy pool.")


@collector(name="entropy", metrics=(AVAILABLE, POOL_SIZE))
def collect(node: Node) -> Iterator[Sample]:
    """Report how much entropy the kernel's random generator has."""
    try:
        yield AVAILABLE.at(int(node.proc.bytes("sys/kernel/random/entropy_avail")))
        yield POOL_SIZE.at(int(node.proc.bytes("sys/kernel/random/poolsize")))
    except FileNotFoundError as error:
        raise NoData("this kernel does not tell its entropy") from error
