"""Report what this machine asked of NFS servers."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter
from narthex_exporter.sources.rpc import CLIENT_V4, V2, V3, calls, parse_rpc

PACKETS = counter(
    "node_nfs_packets_total",
    "Total NFSd network packets (sent+received) by protocol type.",
    ("protocol",),
)
CONNECTIONS = counter("node_nfs_connections_total", "Total number of NFSd TCP connections.")
RPCS = (
    counter("node_nfs_rpcs_total", "Total number of RPCs performed."),
    counter("node_nfs_rpc_retransmissions_total", "Number of RPC transmissions performed."),
    counter(
        "node_nfs_rpc_authentication_refreshes_total",
        "Number of RPC authentication refreshes performed.",
    ),
)
REQUESTS = counter(
    "node_nfs_requests_total", "Number of NFS procedures invoked.", ("proto", "method")
)
_VERSIONS = (("2", "proc2", V2), ("3", "proc3", V3), ("4", "proc4", CLIENT_V4))


@collector(name="nfs", metrics=(PACKETS, CONNECTIONS, *RPCS, REQUESTS))
def collect(node: Node) -> Iterator[Sample]:
    """Report what this machine asked of NFS servers."""
    try:
        lines = parse_rpc(node.proc.text("net/rpc/nfs"))
    except FileNotFoundError as error:
        raise NoData("this machine is no NFS client") from error
    _, udp, tcp, connections = (*lines.get("net", ()), 0, 0, 0, 0)[:4]
    yield PACKETS.at(udp, "udp")
    yield PACKETS.at(tcp, "tcp")
    yield CONNECTIONS.at(connections)
    for metric, number in zip(RPCS, lines.get("rpc", ()), strict=False):
        yield metric.at(number)
    for version, line, names in _VERSIONS:
        for method, number in calls(lines.get(line, []), names):
            yield REQUESTS.at(number, version, method)
