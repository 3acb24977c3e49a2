"""Report failed logins."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter, gauge
from narthex_exporter.sources.utmp import FailedLogins

FAILURES = counter("narthex_login_failures_total", "Failed logins since the exporter was started.")
LAST = gauge(
    "narthex_login_last_failure_timestamp_seconds",
    "When a login failed last, in unixtime.",
)


@collector(name="login_failures", metrics=(FAILURES, LAST))
def collect(node: Node) -> Iterator[Sample]:
    """Report failed logins, as btmp has them."""
    try:
        total, last = node.source(FailedLogins).look()
    except FileNotFoundError as error:
        raise NoData("there is no /var/log/btmp") from error
    except PermissionError as error:
        raise NoData(
            "/var/log/btmp is not readable: add the exporter's user to the group utmp"
        ) from error
    yield FAILURES.at(total)
    if last is not None:
        yield LAST.at(last)
