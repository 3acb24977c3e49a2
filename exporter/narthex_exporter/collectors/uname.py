"""Report which kernel runs."""

import os
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

# The label, and the file below /proc/sys/kernel that has it.
_FILES: Final = {
    "sysname": "ostype",
    "release": "osrelease",
    "version": "version",
    "nodename": "hostname",
    "domainname": "domainname",
}
INFO = gauge(
    "node_uname_info",
    "Labeled system information as provided by the uname system call.",
    (*_FILES, "machine"),
)


@collector(name="uname", metrics=(INFO,))
def collect(node: Node) -> Iterator[Sample]:
    """Report which kernel runs."""
    words = [node.proc.text(f"sys/kernel/{file}").strip() for file in _FILES.values()]
    yield INFO.at(1, *words, os.uname().machine)
