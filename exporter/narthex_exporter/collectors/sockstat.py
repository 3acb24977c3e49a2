"""Report how many sockets are in use."""

import os
from collections.abc import Iterator
from functools import cache
from typing import Final

from narthex_exporter.collectors.spec import Metric, NoData, Node, Sample, collector, gauges

FIELD = gauges("node_sockstat_{field}", "Number of sockets in state {field}.")

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@cache
def _metric(protocol: str, key: str) -> Metric:
    return FIELD.named(field=f"{protocol}_{key}")


@collector(name="sockstat", metrics=(FIELD,))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many sockets are in use."""
    try:
        found = node.proc.sockstat()
    except FileNotFoundError as error:
        raise NoData("this kernel shows no sockstat") from error
    for protocol, key, number in found + _six(node):
        yield _metric(protocol, key).at(number)
        if key == "mem":
            yield _metric(protocol, "mem_bytes").at(number * _PAGE)


def _six(node: Node) -> list[tuple[str, str, int]]:
    try:
        return node.proc.sockstat("sockstat6")
    except FileNotFoundError:
        return []  # IPv6 is off
