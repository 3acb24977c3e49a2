"""Know who would be cut by a change, and refuse to cut who keeps the node."""

import ipaddress
from collections.abc import Iterator
from typing import Final

from narthex_exporter.actions.firewalltable import OwnRule
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import ConnectionFact, Facts
from narthex_exporter.contract.firewallfacts import FirewallView
from narthex_exporter.contract.spec import Planned
from narthex_exporter.contract.steps import Note

_EXPORTER_PORT: Final = 19100
_SSH_PORT: Final = 22
_SHOWN: Final = 8


def tell_cut(view: FirewallView, facts: Facts, table: str) -> Planned:
    """Refuse what would cut those by whom the node is kept; tell who else would be."""
    protected = _protected_ports(facts)
    cut: dict[tuple[str, str, int, str], int] = {}
    for one in facts.sockets.connections():
        key = (one.protocol, one.peer_address, one.local_port, one.unit or one.comm)
        cut[key] = cut.get(key, 0) + 1
    for protocol, peer, port, holder in list(cut):
        if not is_served(facts, protocol, port) or not _is_shut_out(
            view, table, protocol, port, peer
        ):
            del cut[protocol, peer, port, holder]
        elif port in protected and protocol == "tcp":
            raise _cutting(peer, port, protected[port])
    yield from _told_of(cut, facts)


def _is_shut_out(view: FirewallView, table: str, protocol: str, port: int, peer: str) -> bool:
    address = peer.partition("%")[0]
    now = view.judge(protocol, port, address)
    return (
        now.verdict != "drop"
        and view.judge(protocol, port, address, own_table=table).verdict == "drop"
    )


def _told_of(cut: dict[tuple[str, str, int, str], int], facts: Facts) -> Planned:
    for (protocol, peer, port, holder), count in list(cut.items())[:_SHOWN]:
        many = f"{count} connections are" if count > 1 else "a connection is"
        yield Note(
            text=f"{many} open from {peer} to {port}/{protocol} ({holder or 'unknown'}):"
            " what is open stays, new ones are refused"
        )
    if len(cut) > _SHOWN:
        yield Note(text=f"and {len(cut) - _SHOWN} peers more")
    peers = {peer for _, peer, _, _ in cut}
    for session in facts.sessions.list():
        if session.address in peers:
            yield Note(
                text=f"{session.user} has a terminal open on {session.terminal}"
                f" from {session.address}"
            )


def is_served(facts: Facts, protocol: str, port: int) -> bool:
    """Tell connections to us from our own to others."""
    return any((one.protocol, one.port) == (protocol, port) for one in facts.sockets.listeners())


def _protected_ports(facts: Facts) -> dict[int, str]:
    """Give the TCP ports by which this node is kept, and what each is."""
    found = {_EXPORTER_PORT: "the operator and Prometheus", _SSH_PORT: "SSH"}
    for one in facts.sockets.listeners():
        if one.protocol == "tcp" and one.unit == "narthex-exporter.service":
            found[one.port] = "the operator and Prometheus"
        elif one.protocol == "tcp" and one.comm == "sshd":
            found[one.port] = "SSH"
    return found


def _cutting(peer: str, port: int, what: str) -> RefusedError:
    return RefusedError(
        f"it would cut {peer}, which is connected to port {port} ({what})",
        hint=f"let it in first: open port {port} from there, or name it in"
        " `firewall.always_allow` of the node's policy",
    )


def _kept_connections(view: FirewallView, facts: Facts) -> Iterator[tuple[ConnectionFact, str]]:
    """Give the connections by which the node is kept, those left out that always get in."""
    protected = _protected_ports(facts)
    for one in facts.sockets.connections():
        if one.protocol != "tcp" or one.local_port not in protected:
            continue
        always = any(
            _holds(source, one.peer_address) and port in {0, one.local_port}
            for source, port in view.settings.always_allow
        )
        if not always and is_served(facts, "tcp", one.local_port):
            yield one, protected[one.local_port]


def check_not_denied(rule: OwnRule, view: FirewallView, facts: Facts) -> None:
    """Refuse a rule that denies who keeps the node. Raises RefusedError."""
    for one, what in _kept_connections(view, facts):
        if _covers(rule.source, rule.protocol, rule.ports, one):
            raise _cutting(one.peer_address, one.local_port, what)


def check_let_in(view: FirewallView, facts: Facts, *, without: OwnRule | None = None) -> None:
    """Refuse a default that drops where no rule of ufw's lets in who keeps the node."""
    rules = [
        one
        for one in view.rules
        if one.backend == "ufw"
        and one.direction == "input"
        and one.action in {"accept", "limit"}
        and (without is None or without.id not in one.comment)
    ]
    for one, what in _kept_connections(view, facts):
        if not any(_covers(rule.source, rule.protocol, rule.ports, one) for rule in rules):
            raise _cutting(one.peer_address, one.local_port, what)


def _covers(source: str, protocol: str, ports: str, one: ConnectionFact) -> bool:
    if protocol not in {"", one.protocol} or not _holds(source, one.peer_address):
        return False
    for part in ports.split(",") if ports else ():
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and int(first) <= one.local_port <= int(last or first):
            return True
    return not ports


def _holds(source: str, address: str) -> bool:
    if not source:
        return True
    network = ipaddress.ip_network(source, strict=False)
    one = ipaddress.ip_address(address.partition("%")[0])
    return one.version == network.version and one in network


def holders(facts: Facts, protocol: str, port: int) -> str:
    """Name who listens on a port; empty where nobody does."""
    names = {
        one.unit or one.container or one.comm or "somebody"
        for one in facts.sockets.listeners()
        if (one.protocol, one.port) == (protocol, port)
    }
    return ", ".join(sorted(names))
