"""Report how many accounts the machine has, and how many of them are as good as root."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.accounts import AccountFiles

ACCOUNTS = gauge(
    "narthex_accounts",
    "How many local accounts there are, by whether they have a shell: login, nologin.",
    ("kind",),
)
ROOT_EQUIVALENT = gauge(
    "narthex_root_equivalent_users",
    "How many users are root or in a group that can become root, as sudo and docker can.",
)


@collector(name="accounts", metrics=(ACCOUNTS, ROOT_EQUIVALENT), every_seconds=60)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many accounts the machine has, and how many of them are as good as root."""
    try:
        accounts = node.source(AccountFiles).accounts()
    except FileNotFoundError as error:
        raise NoData("there is no /etc/passwd or /etc/group") from error
    yield ACCOUNTS.at(accounts.login, "login")
    yield ACCOUNTS.at(accounts.nologin, "nologin")
    yield ROOT_EQUIVALENT.at(accounts.root_equivalent)
