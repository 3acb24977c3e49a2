"""Ask about a node's ports: who listens, who is connected, and from where each can be reached."""

import datetime as dt
from collections import Counter
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.contract.facts import ConnectionFact, Facts, ListenerFact
from narthex_exporter.contract.firewallfacts import FirewallRuleFact, FirewallView, ReachFact
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.errors import UnavailableError

_MOST: Final = 5000
_TEXT: Final = 300


class ListParams(QueryParams):
    """Parameters of port.list."""


class ConnectionsParams(QueryParams):
    """Parameters of port.connections."""

    limit: Annotated[int, Field(title="At most", ge=1, le=_MOST, strict=True)] = 500


class Port(Result):
    """A listening socket, or a port that is only forwarded: then ``comm`` is empty.

    ``reach`` is ``local`` (this machine only), ``networks`` (those listed), ``anywhere`` (but
    from ``excepted``) or ``unknown`` (``why`` says so). ``rule`` decides that. ``forwarded_to``
    is where connections from elsewhere really go: a published container's port is open whatever
    the rules for this machine's own ports say.
    """

    protocol: str
    address: str
    port: int
    pid: int
    comm: str
    unit: str
    container: str
    first_seen_at: AwareDatetime | None
    reach: str
    networks: tuple[str, ...]
    excepted: tuple[str, ...]
    rule: str
    why: str
    forwarded_to: str


class PortList(Result):
    """The ports of a node; ``blind`` says why no reach is known, if so."""

    ports: tuple[Port, ...]
    blind: str


class Peer(Result):
    """Connections from one peer to, or by, one holder. ``port`` is ours, 0 for outgoing ones."""

    peer: str
    protocol: str
    port: int
    comm: str
    unit: str
    container: str
    is_incoming: bool
    count: int


class PeerList(Result):
    """Who is connected; ``total`` counts all connections."""

    peers: tuple[Peer, ...]
    total: int


@query(name="port.list", title="Ports")
def list_ports(params: ListParams, facts: Facts) -> PortList:  # noqa: ARG001
    """List who listens, and from where each can be reached, Docker's forwards included."""
    listeners = list(facts.sockets.listeners())[:_MOST]
    try:
        view: FirewallView | None = facts.firewall.look()
        blind = ""
    except UnavailableError as error:
        view, blind = None, str(error)
    ports = [_port(one, _reach(view, one, blind)) for one in listeners]
    heard = {(one.protocol, one.port) for one in listeners}
    for rule in view.forwards if view is not None else ():
        listener = _unheard(rule)
        if listener is not None and (listener.protocol, listener.port) not in heard:
            heard.add((listener.protocol, listener.port))
            ports.append(_port(listener, _reach(view, listener, blind)))
    return PortList(ports=tuple(ports), blind=blind)


@query(name="port.connections", title="Connections")
def list_connections(params: ConnectionsParams, facts: Facts) -> PeerList:
    """Count established connections by peer and holder, most first."""
    served = {(one.protocol, one.port) for one in facts.sockets.listeners()}
    found = list(facts.sockets.connections())
    counts = Counter(_grouped(one, served) for one in found)
    peers = tuple(
        peer.model_copy(update={"count": count})
        for peer, count in counts.most_common(params.limit)
    )
    return PeerList(peers=peers, total=len(found))


def _grouped(one: ConnectionFact, served: set[tuple[str, int]]) -> Peer:
    is_incoming = (one.protocol, one.local_port) in served
    return Peer(
        peer=one.peer_address,
        protocol=one.protocol,
        port=one.local_port if is_incoming else 0,
        comm=one.comm,
        unit=one.unit,
        container=one.container,
        is_incoming=is_incoming,
        count=0,
    )


def _unheard(rule: FirewallRuleFact) -> ListenerFact | None:
    """Tell what a forward takes connections on, as if it listened itself."""
    if not rule.ports.isdecimal() or rule.protocol not in {"tcp", "udp"}:
        return None
    return ListenerFact(
        protocol=rule.protocol,
        address=rule.destination or "0.0.0.0",  # noqa: S104 - what it means, no socket of ours
        port=int(rule.ports),
    )


def _reach(view: FirewallView | None, one: ListenerFact, blind: str) -> ReachFact:
    if view is None:
        return ReachFact(scope="unknown", why=blind)
    return view.reach(one.protocol, one.address, one.port)


def _port(one: ListenerFact, reach: ReachFact) -> Port:
    seen = one.first_seen_seconds
    return Port(
        protocol=one.protocol,
        address=one.address,
        port=one.port,
        pid=one.pid,
        comm=one.comm,
        unit=one.unit,
        container=one.container,
        first_seen_at=dt.datetime.fromtimestamp(seen, tz=dt.UTC) if seen else None,
        reach=reach.scope,
        networks=reach.networks,
        excepted=reach.excepted,
        rule=reach.rule[:_TEXT],
        why=reach.why[:_TEXT],
        forwarded_to=reach.forwarded_to,
    )
