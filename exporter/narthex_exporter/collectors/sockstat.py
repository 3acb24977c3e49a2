"""Report how many sockets are in use."""

import os
from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauges

FIELD = gauges("node_sockstat_{field}", "Number of sockets in state {field}.")


@collector(name="sockstat", metrics=(FIELD,))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many sockets are in use."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        found = node.proc.sockstat()
    except FileNotFoundError as error:
        raise NoData("this kernel shows no sockstat") from error
    for protocol, key, number in found + _six(node):
        yield FIELD.named(field=f"{protocol}_{key}").at(number)
        if key == "mem":
            yield FIELD.named(field=f"{protocol}_mem_bytes").at(number * page)


def _six(node: Node) -> list[tuple[str, str, int]]:
    try:
        return node.proc.sockstat("sockstat6")
    except FileNotFoundError:
        return []  # IPv6 is off
