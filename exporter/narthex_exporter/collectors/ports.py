"""Report who listens on this node, and since when."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
    name_filter,
)
from narthex_exporter.sources.ports import Port, PortWatch, unix_listeners
from narthex_exporter.sources.sockdiag import TCP, UDP

_SOCKET = ("protocol", "address", "port", "process")
COUNT = gauge(
    "narthex_listening_ports",
    "Addresses and ports that are listened on, of the exporter's network namespace.",
    ("protocol",),
)
INFO = gauge(
    "narthex_listening_port_info",
    "A listening TCP or an unconnected UDP socket, and who holds it; value is always 1.",
    (*_SOCKET, "unit", "container"),
)
FIRST_SEEN = gauge(
    "narthex_listening_port_first_seen_timestamp_seconds",
    "When a process was first seen to listen there, in unixtime; 0 if it did when the exporter"
    " started.",
    _SOCKET,
)
UNATTRIBUTED = gauge(
    "narthex_listening_sockets_unattributed",
    "Listening sockets of the kernel's, or of processes that the exporter may not look into.",
)
UNIX = gauge("narthex_listening_unix_sockets", "Unix sockets that are listened on.")
PROCESSES = name_filter("process", "Processes that listen, where they are known,")
MOST = limit_option("max", 200, "Listening sockets to report at most, of the lowest ports first.")


@collector(
    name="ports",
    metrics=(COUNT, INFO, FIRST_SEEN, UNATTRIBUTED, UNIX),
    options=(*PROCESSES.options, MOST),
    every_seconds=30.0,
    limit_seconds=10.0,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report who listens on this node, and since when.

    For an alert, who began to listen within the hour, while the exporter ran:
    ``time() - narthex_listening_port_first_seen_timestamp_seconds < 3600``; who did not a day ago,
    whatever was restarted: ``narthex_listening_port_info unless narthex_listening_port_info
    offset 1d and on (instance) up offset 1d``.
    Containers with a network of their own are not looked into, only what is published for them.
    """
    found = node.source(PortWatch).look(node.proc)
    for protocol in (TCP, UDP):
        places = {(each.address, each.port) for each in found.ports if each.protocol == protocol}
        yield COUNT.at(len(places), protocol)
    yield UNATTRIBUTED.at(found.unseen)
    told = [
        each for each in found.ports if not each.process or node.wanted(PROCESSES, each.process)
    ]
    told.sort(key=_order)
    first_seen = {}
    for each in node.capped(MOST, told):
        socket = (each.protocol, each.address, str(each.port), each.process)
        first_seen[socket] = each.first_seen
        yield INFO.at(1, *socket, each.unit, each.container)
    for socket, at in first_seen.items():
        yield FIRST_SEEN.at(at, *socket)
    try:
        yield UNIX.at(unix_listeners(node.proc))
    except FileNotFoundError:
        return  # a kernel without Unix sockets


def _order(each: Port) -> tuple[int, tuple[object, ...]]:
    return each.port, each
