"""Tell from where a port of this machine can be reached, by its packet filter and its routes."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from narthex_exporter.contract.firewallfacts import ReachFact, VerdictFact
from narthex_exporter.sources.nftparse import Ruleset
from narthex_exporter.sources.nftwalk import Address, End, Packet, Walk, spans

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Beyond so many different sources no verdict is worth its time.
_MOST_SPANS: Final = 4000
_SHOWN_NETWORKS: Final = 64
_SHOWN_DOUBTS: Final = 3
_EVERY: Final = ("0.0.0.0", "::")  # noqa: S104 - what a listener says, not where we bind
_BYTES_OF_SIX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The machine's own addresses, and which interface leads to which network."""

    addresses: tuple[tuple[str, Address], ...] = ()
    routes: tuple[tuple[Network, str], ...] = ()

    def is_local(self, address: Address) -> bool:
        """Tell whether an address is this machine's."""
        return address.is_loopback or any(one == address for _, one in self.addresses)

    def route(self, address: Address) -> str:
        """Name the interface that leads to an address; empty where none does."""
        fitting = [
            (network.prefixlen, name)
            for network, name in self.routes
            if network.version == address.version and address in network
        ]
        return max(fitting, default=(0, ""))[1]

    def address_at(self, interface: str, version: int) -> Address | None:
        """Give an address of an interface, or any of the machine's; ``None`` where it has none."""
        mine = [(name, one) for name, one in self.addresses if one.version == version]
        at = [one for name, one in mine if name == interface]
        return next(iter(at), next((one for _, one in mine), None))

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP in which this machine can be reached from elsewhere."""
        return tuple(sorted({network.version for network, _ in self.routes}))


def read_layout(proc: Path = Path("/proc")) -> Layout:
    """Read the layout of our network namespace."""
    addresses, routes = [], []
    for name, found in psutil.net_if_addrs().items():
        for one in found:
            if one.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            address = ipaddress.ip_address(one.address.partition("%")[0])
            if address.is_loopback:
                continue
            addresses.append((name, address))
    for line in _lines(proc / "net/route")[1:]:
        routes += _four(line)
    for line in _lines(proc / "net/ipv6_route"):
        routes += _six(line)
    return Layout(addresses=tuple(addresses), routes=tuple(routes))


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []


def _four(line: str) -> list[tuple[Network, str]]:
    """Read a line of /proc/net/route: hexadecimal, in the machine's order of bytes."""
    words = line.split()
    try:
        base, mask = (int.from_bytes(bytes.fromhex(words[at])[::-1], "big") for at in (1, 7))
        return [(ipaddress.IPv4Network((base, mask.bit_count())), words[0])]
    except (IndexError, ValueError):
        return []


def _six(line: str) -> list[tuple[Network, str]]:
    """Read a line of /proc/net/ipv6_route; routes of the loopback lead nowhere."""
    words = line.split()
    try:
        if words[-1] == "lo" or len(words[0]) != _BYTES_OF_SIX:
            return []
        network = ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)))
    except (IndexError, ValueError):
        return []
    return [] if network.is_multicast else [(network, words[-1])]


@dataclass(slots=True, kw_only=True)
class Reachability:
    """Judges one ruleset on one machine."""

    ruleset: Ruleset
    layout: Layout
    now: float = 0.0
    blind: str = ""
    _spans: Sequence[tuple[Address, Address]] | None = field(default=None, init=False)

    def judge(self, protocol: str, address: str, port: int, source: Address) -> VerdictFact:
        """Tell what would become of a new connection. See ``VerdictFact``."""
        walk = self._walk()
        target = self._target(address, source)
        if target is None:
            return VerdictFact(verdict="drop", rule=f"this machine has no IPv{source.version}")
        packet = Packet(
            protocol=protocol,
            source=source,
            address=target,
            port=port,
            interface=self.layout.route(source),
        )
        return _verdict(walk.ends(packet), tuple(walk.doubts), self.blind)

    def reach(self, protocol: str, address: str, port: int) -> ReachFact:
        """Tell from where a listener can be reached. See ``ReachFact``."""
        bound = ipaddress.ip_address(address.partition("%")[0])
        if bound.is_loopback:
            return ReachFact(scope="local", rule=f"it listens on {address} only")
        # A socket on `::` takes IPv4 as well, where bindv6only is off, as it is by default.
        versions = self.layout.versions if address == "::" else (bound.version,)
        found: dict[VerdictFact, list[tuple[Address, Address]]] = {}
        intervals = self._intervals(versions)
        if len(intervals) > _MOST_SPANS:
            why = f"the rules tell more than {_MOST_SPANS} networks apart"
            return ReachFact(scope="unknown", why=why)
        for low, high in intervals:
            verdict = self.judge(protocol, address, port, _someone(low, high))
            found.setdefault(verdict, []).append((low, high))
        return _reached(found, self.layout)

    def _walk(self) -> Walk:
        return Walk(
            ruleset=self.ruleset,
            route=self.layout.route,
            is_local=self.layout.is_local,
            now=self.now,
        )

    def _target(self, address: str, source: Address) -> Address | None:
        bound = ipaddress.ip_address(address.partition("%")[0]) if address else None
        if bound is None or str(bound) in _EVERY:
            return self.layout.address_at(self.layout.route(source), source.version)
        return bound

    def _intervals(self, versions: Iterable[int]) -> list[tuple[Address, Address]]:
        """Part all sources so that no rule, and no route, tells those in one part apart."""
        if self._spans is None:
            networks = [network for network, _ in self.layout.routes]
            self._spans = [*spans(self.ruleset), *((one[0], one[-1]) for one in networks)]
        found = []
        for version in versions:
            most = 2 ** (32 if version == 4 else 128)  # noqa: PLR2004
            make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address  # noqa: PLR2004
            mine = [(int(a), int(b)) for a, b in self._spans if a.version == version]
            edges = sorted(
                {0, *(low for low, _ in mine), *(high + 1 for _, high in mine)} - {most}
            )
            found += [
                (make(low), make(high - 1))
                for low, high in zip(edges, [*edges[1:], most], strict=True)
            ]
        return [one for one in found if not _is_nobody(one)]


def _is_nobody(interval: tuple[Address, Address]) -> bool:
    """Tell whether no peer has such an address."""
    low, high = interval
    return (low.is_multicast and high.is_multicast) or (low.is_loopback and high.is_loopback)


def _someone(low: Address, high: Address) -> Address:
    """Choose one of an interval: not its first, which may be a network's own name."""
    return low + 1 if int(low) < int(high) else low


def _verdict(ends: list[End], doubts: tuple[str, ...], blind: str) -> VerdictFact:
    accepted = {end.accepted for end in ends}
    if blind or len(accepted) != 1:
        return VerdictFact(verdict="unknown", why=blind or _told(doubts))
    if not accepted.pop():
        return VerdictFact(verdict="drop", rule=ends[0].rule)
    packets = [end.packet for end in ends if end.packet is not None]
    sent = [one for one in packets if one.first_address is not None]
    to = ""
    if sent:
        address = f"[{sent[0].address}]" if sent[0].address.version == 6 else str(sent[0].address)  # noqa: PLR2004
        to = f"{address}:{sent[0].port}"
    rule = next((end.rule for end in ends if end.rule), "")
    return VerdictFact(verdict="accept", rule=rule, forwarded_to=to)


def _told(doubts: tuple[str, ...]) -> str:
    more = len(doubts) - _SHOWN_DOUBTS
    told = "; ".join(doubts[:_SHOWN_DOUBTS]) + (f"; and {more} more" if more > 0 else "")
    return f"these rules cannot be judged: {told}"


def _reached(found: dict[VerdictFact, list[tuple[Address, Address]]], layout: Layout) -> ReachFact:
    unknown = [one for one in found if one.verdict == "unknown"]
    if unknown:
        return ReachFact(scope="unknown", why=unknown[0].why)
    let = [(one, span) for one, many in found.items() if one.verdict == "accept" for span in many]
    kept = [(one, span) for one, many in found.items() if one.verdict == "drop" for span in many]
    to = next((one.forwarded_to for one, _ in let if one.forwarded_to), "")
    if not let:
        rule = kept[0][0].rule if kept else "this machine has no route to any network"
        return ReachFact(scope="local", rule=rule)
    rule = next((one.rule for one, _ in let if one.rule), "") or "no rule forbids it"
    if _size(let) > _size(kept):
        # What does not even have an address here is not worth an exception.
        excepted = [span for _, span in kept if span[0].version in layout.versions]
        return ReachFact(
            scope="anywhere", excepted=_networks(excepted), rule=rule, forwarded_to=to
        )
    return ReachFact(
        scope="networks", networks=_networks(span for _, span in let), rule=rule, forwarded_to=to
    )


def _size(parts: list[tuple[VerdictFact, tuple[Address, Address]]]) -> float:
    """Weigh addresses, those of IPv4 as much as those of IPv6."""
    return sum(
        (int(high) - int(low) + 1) / 2.0 ** (32 if low.version == 4 else 128)  # noqa: PLR2004
        for _, (low, high) in parts
    )


def _networks(parts: Iterable[tuple[Address, Address]]) -> tuple[str, ...]:
    four, six = [], []
    for low, high in parts:
        for network in ipaddress.summarize_address_range(low, high):
            if isinstance(network, ipaddress.IPv4Network):
                four.append(network)
            else:
                six.append(network)
    found = [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]
    return tuple(str(one) for one in found[:_SHOWN_NETWORKS])
