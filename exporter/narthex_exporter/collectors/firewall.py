"""Report whether this node filters packets, and by how many rules."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources.firewall import Firewalls, Policy

ENABLED = gauge(
    "narthex_firewall_enabled",
    "Whether a packet filter is in force: nftables and iptables with any rule or policy drop, ufw"
    " and firewalld by their own word.",
    ("backend",),
)
RULES = gauge(
    "narthex_firewall_rules",
    "Rules of a packet filter; what firewalld and ufw make of theirs is nftables' or iptables'"
    " too.",
    ("backend",),
)
POLICY = gauge(
    "narthex_firewall_default_policy",
    "What becomes of a packet that no rule of a chain decided; value is always 1.",
    ("backend", "family", "table", "chain", "hook", "policy"),
)
MOST = limit_option("max", 100, "Chains to report at most.")


@collector(
    name="firewall",
    metrics=(ENABLED, RULES, POLICY),
    options=(MOST,),
    every_seconds=60.0,
    limit_seconds=30.0,
    privileged=True,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report whether this node filters packets, and by how many rules.

    iptables over nftables, as most distributions have it, is ``nftables``; ``iptables`` is the
    kernel's older tables.
    """
    found = node.source(Firewalls).look(node.proc)
    if not found:
        raise NoData("there is no packet filter that we know")
    policies: list[Policy] = []
    for each in found:
        yield ENABLED.at(int(each.enabled), each.backend)
        if each.rules is not None:
            yield RULES.at(each.rules, each.backend)
        policies += each.policies
    for policy in node.capped(MOST, policies):
        yield POLICY.at(1, *policy)
