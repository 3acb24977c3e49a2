"""Report what this machine's NFS server did."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources.rpc import SERVER_V4, V2, V3, calls, parse_rpc


def _count(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    return counter(f"node_nfsd_{name}_total", help, labels)


# The line of /proc/net/rpc/nfsd and the number in it, counted from 0, and what it becomes.
NUMBERS: Final = {
    ("rc", 0): _count(
        "reply_cache_hits", "Total number of NFSd Reply Cache hits (client lost server response)."
    ),
    ("rc", 1): _count(
        "reply_cache_misses",
        "Total number of NFSd Reply Cache an operation that requires caching (idempotent).",
    ),
    ("rc", 2): _count(
        "reply_cache_nocache",
        "Total number of NFSd Reply Cache non-idempotent operations (rename/delete/…).",
    ),
    ("fh", 0): _count("file_handles_stale", "Total number of NFSd stale file handles"),
    ("io", 0): _count("disk_bytes_read", "Total NFSd bytes read."),
    ("io", 1): _count("disk_bytes_written", "Total NFSd bytes written."),
    ("th", 0): gauge(
        "node_nfsd_server_threads", "Total number of NFSd kernel threads that are running."
    ),
    ("ra", 0): gauge(
        "node_nfsd_read_ahead_cache_size_blocks", "How large the read ahead cache is in blocks."
    ),
    ("ra", 11): _count(
        "read_ahead_cache_not_found", "Total number of NFSd read ahead cache not found."
    ),
    ("net", 3): _count("connections", "Total number of NFSd TCP connections."),
    ("rpc", 0): _count("server_rpcs", "Total number of NFSd RPCs."),
}
PACKETS = _count(
    "packets", "Total NFSd network packets (sent+received) by protocol type.", ("proto",)
)
ERRORS = _count("rpc_errors", "Total number of NFSd RPC errors by error type.", ("error",))
REQUESTS = _count(
    "requests", "Total number NFSd Requests by method and protocol.", ("proto", "method")
)
_LABELLED: Final = (
    ("net", 1, PACKETS, "udp"),
    ("net", 2, PACKETS, "tcp"),
    ("rpc", 2, ERRORS, "fmt"),
    ("rpc", 3, ERRORS, "auth"),
    ("rpc", 4, ERRORS, "cInt"),
)
# Versions 2 and 3 without their null calls, as node_exporter has it.
_VERSIONS: Final = (
    ("2", "proc2", (None, *V2[1:])),
    ("3", "proc3", (None, *V3[1:])),
    ("4", "proc4ops", SERVER_V4),
)


@collector(name="nfsd", metrics=(*NUMBERS.values(), PACKETS, ERRORS, REQUESTS))
def collect(node: Node) -> Iterator[Sample]:
    """Report what this machine's NFS server did."""
    try:
        lines = parse_rpc(node.proc.text("net/rpc/nfsd"))
    except FileNotFoundError as error:
        raise NoData("this machine is no NFS server") from error
    for (line, position), metric in NUMBERS.items():
        if position < len(lines.get(line, ())):
            yield metric.at(lines[line][position])
    for line, position, metric, label in _LABELLED:
        if position < len(lines.get(line, ())):
            yield metric.at(lines[line][position], label)
    for version, line, names in _VERSIONS:
        for method, number in calls(lines.get(line, []), names):
            yield REQUESTS.at(number, version, method)
    if "wdeleg_getattr" in lines:
        yield REQUESTS.at(lines["wdeleg_getattr"][0], "4", "WdelegGetattr")
