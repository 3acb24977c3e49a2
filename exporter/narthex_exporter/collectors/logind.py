"""Report the login sessions that systemd-logind knows."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.logins import sessions

SESSIONS = gauge(
    "node_logind_sessions",
    "Number of sessions registered in logind.",
    ("seat", "remote", "type", "class"),
)
# What node_exporter tells by name; the rest is "other".
_TYPES: Final = frozenset({"unspecified", "tty", "x11", "wayland", "mir", "web"})
_CLASSES: Final = frozenset({"user", "greeter", "lock-screen", "background"})
# Told even at nought, so that there is always something to add up. Of the other 140 combinations
# that node_exporter tells for a machine with one seat, those without a session are left out.
_ALWAYS: Final = (("", "false", "tty", "user"), ("", "true", "tty", "user"))


@collector(name="logind", metrics=(SESSIONS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report the login sessions that systemd-logind knows."""
    try:
        found = sessions(node.paths.root)
    except FileNotFoundError as error:
        raise NoData("systemd-logind does not run here") from error
    counts = Counter(dict.fromkeys(_ALWAYS, 0))
    for each in found:
        kind = each.kind if each.kind in _TYPES else "other"
        class_ = each.class_ if each.class_ in _CLASSES else "other"
        counts[each.seat, "true" if each.remote else "false", kind, class_] += 1
    for values, count in counts.items():
        yield SESSIONS.at(count, *values)
