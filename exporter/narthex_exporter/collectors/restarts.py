"""Report how many services should be restarted after an update."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.stale import stale_services

NEED_RESTART = gauge(
    "narthex_services_need_restart",
    "How many services still run code of libraries that were replaced.",
)


@collector(
    name="restarts",
    metrics=(NEED_RESTART,),
    every_seconds=3600,
    limit_seconds=60,
    privileged=True,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many services should be restarted after an update."""
    try:
        services = stale_services(node.paths.proc)
    except PermissionError as error:
        raise NoData(str(error)) from error
    yield NEED_RESTART.at(len(services))
