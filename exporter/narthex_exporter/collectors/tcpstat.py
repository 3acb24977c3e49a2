"""Report how many TCP connections are in each state."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.sockdiag import SockDiag

# By the kernel's numbers, from 1; see include/net/tcp_states.h.
_NAMES: Final = (
    "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close",
    "close_wait", "last_ack", "listen", "closing",
)  # fmt: skip
CONNECTIONS = gauge("node_tcp_connection_states", "Number of connection states.", ("state",))


# The kernel walks the whole table of connections, however few there are: measured, 3 ms, as much
# as all else that a scrape of the host takes.
@collector(name="tcpstat", metrics=(CONNECTIONS,), every_seconds=15, limit_seconds=5)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many TCP connections are in each state.

    As in node_exporter a state that no socket is in is not told, and ``rx_queued_bytes`` and
    ``tx_queued_bytes`` are no states. Those leave listeners out, whose queues hold peers:
    node_exporter takes the length that their queues may have for bytes.
    """
    try:
        found = node.source(SockDiag).tcp_states(node.proc)
    except FileNotFoundError as error:
        raise NoData("this kernel shows no TCP") from error
    known = found.counts[1 : len(_NAMES) + 1]
    for name, count in zip(_NAMES, known, strict=True):
        if count:
            yield CONNECTIONS.at(count, name)
    if unknown := sum(found.counts) - sum(known):
        yield CONNECTIONS.at(unknown, "unknown")
    yield CONNECTIONS.at(found.receive_bytes, "rx_queued_bytes")
    yield CONNECTIONS.at(found.send_bytes, "tx_queued_bytes")
