"""Report how many users need no password."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.accounts import AccountFiles

WITHOUT = gauge(
    "narthex_users_without_password", "How many local users log in without a password."
)


@collector(name="passwords", metrics=(WITHOUT,), every_seconds=300, privileged=True)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many users need no password."""
    try:
        count = node.source(AccountFiles).without_password()
    except FileNotFoundError as error:
        raise NoData("there is no /etc/shadow") from error
    except PermissionError as error:
        raise NoData("/etc/shadow is root's alone") from error
    yield WITHOUT.at(count)
