"""Report how each CPU copes with received packets."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter, gauge
from narthex_exporter.sources.netcounters import parse_softnet

_CPU = ("cpu",)
PROCESSED = counter("node_softnet_processed_total", "Number of processed packets", _CPU)
DROPPED = counter("node_softnet_dropped_total", "Number of dropped packets", _CPU)
SQUEEZED = counter(
    "node_softnet_times_squeezed_total",
    "Number of times processing packets ran out of quota",
    _CPU,
)
COLLISION = counter(
    "node_softnet_cpu_collision_total",
    "Number of collision occur while obtaining device lock while transmitting",
    _CPU,
)
RPS = counter("node_softnet_received_rps_total", "Number of times cpu woken up received_rps", _CPU)
FLOW_LIMIT = counter(
    "node_softnet_flow_limit_count_total", "Number of times flow limit has been reached", _CPU
)
BACKLOG = gauge("node_softnet_backlog_len", "Softnet backlog status", _CPU)


@collector(
    name="softnet",
    metrics=(PROCESSED, DROPPED, SQUEEZED, COLLISION, RPS, FLOW_LIMIT, BACKLOG),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how each CPU copes with received packets."""
    try:
        text = node.proc.text("net/softnet_stat")
    except FileNotFoundError as error:
        raise NoData("this kernel shows no softnet_stat") from error
    for each in parse_softnet(text):
        yield PROCESSED.at(each.processed, each.cpu)
        yield DROPPED.at(each.dropped, each.cpu)
        yield SQUEEZED.at(each.times_squeezed, each.cpu)
        yield COLLISION.at(each.cpu_collision, each.cpu)
        for metric, number in (
            (RPS, each.received_rps),
            (FLOW_LIMIT, each.flow_limit_count),
            (BACKLOG, each.backlog_len),
        ):
            if number is not None:
                yield metric.at(number, each.cpu)
