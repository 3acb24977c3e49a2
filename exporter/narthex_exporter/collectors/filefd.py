"""Report how many file handles are in use."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

ALLOCATED = gauge("node_filefd_allocated", "File descriptor statistics: allocated.")
MAXIMUM = gauge("node_filefd_maximum", "File descriptor statistics: maximum.")


@collector(name="filefd", metrics=(ALLOCATED, MAXIMUM))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many file handles are in use."""
    allocated, maximum = node.proc.file_nr()
    yield ALLOCATED.at(allocated)
    yield MAXIMUM.at(maximum)
