"""Report who is logged in."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources.utmp import Logins

LOGGED_IN = gauge("narthex_logged_in_users", "How many sessions of users there are.")
SESSIONS = gauge("narthex_user_sessions", "How many sessions a user has.", ("user",))
LIMIT = limit_option("max", 50, "How many users to report at most.")


@collector(name="logins", metrics=(LOGGED_IN, SESSIONS), options=(LIMIT,))
def collect(node: Node) -> Iterator[Sample]:
    """Report who is logged in."""
    try:
        sessions = node.source(Logins).sessions()
    except FileNotFoundError as error:
        raise NoData("there is neither logind nor utmp") from error
    yield LOGGED_IN.at(sessions.total())
    for user, count in node.capped(LIMIT, sorted(sessions.items())):
        yield SESSIONS.at(count, user)
