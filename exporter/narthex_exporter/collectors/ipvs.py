"""Report what the kernel's load balancer did."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources.ipvs import parse_backends, parse_stats

# In the order of the columns of /proc/net/ip_vs_stats.
TOTALS: Final = (
    counter("node_ipvs_connections_total", "The total number of connections made."),
    counter("node_ipvs_incoming_packets_total", "The total number of incoming packets."),
    counter("node_ipvs_outgoing_packets_total", "The total number of outgoing packets."),
    counter("node_ipvs_incoming_bytes_total", "The total amount of incoming data."),
    counter("node_ipvs_outgoing_bytes_total", "The total amount of outgoing data."),
)
_LABELS: Final = (
    *("local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"),
)


@lru_cache(maxsize=8)
def _backends(labels: tuple[str, ...]) -> tuple[Metric, Metric, Metric]:
    return (
        gauge(
            "node_ipvs_backend_connections_active",
            "The current active connections by local and remote address.",
            labels,
        ),
        gauge(
            "node_ipvs_backend_connections_inactive",
            "The current inactive connections by local and remote address.",
            labels,
        ),
        gauge(
            "node_ipvs_backend_weight",
            "The current backend weight by local and remote address.",
            labels,
        ),
    )


def _chosen(text: str) -> tuple[str, ...]:
    words = set(filter(None, text.split(",")))
    if unknown := sorted(words.difference(_LABELS)):
        raise ValueError(f"unknown IPVS backend labels: {', '.join(unknown)}")
    return tuple(label for label in _LABELS if label in words)


BACKEND_LABELS = Option(
    "backend-labels",
    ",".join(_LABELS),
    _chosen,
    "Labels of backends, divided by commas; backends that are alike in them are added up.",
)


@collector(name="ipvs", metrics=(*TOTALS, *_backends(_LABELS)), options=(BACKEND_LABELS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report what the kernel's load balancer did."""
    try:
        totals = parse_stats(node.proc.text("net/ip_vs_stats"))
        backends = parse_backends(node.proc.text("net/ip_vs"))
    except FileNotFoundError as error:
        raise NoData("this machine balances no load (IPVS)") from error
    for metric, number in zip(TOTALS, totals, strict=True):
        yield metric.at(number)
    labels = node.setting(BACKEND_LABELS)
    sums: dict[tuple[str, ...], list[int]] = {}
    for each in backends:
        values = tuple(str(getattr(each, label)) for label in labels)
        total = sums.setdefault(values, [0, 0, 0])
        for position, number in enumerate((each.active, each.inactive, each.weight)):
            total[position] += number
    for values, numbers in sums.items():
        for metric, number in zip(_backends(labels), numbers, strict=True):
            yield metric.at(number, *values)
