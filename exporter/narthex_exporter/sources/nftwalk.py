"""Judge what a ruleset does with a new connection to this machine; say where that is not known.

Each condition is true, false or not known. Where a rule's condition is not known, both ways are
gone: only where they end alike is there a verdict.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from narthex_exporter.sources.nftparse import (
    OWN_COMMENT,
    Chain,
    ChainKey,
    Limit,
    Match,
    Rule,
    Ruleset,
    Unknown,
    Verdict,
    VerdictMap,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Whether a condition holds; ``never`` where not even its contrary can, None where unknown.
Answer = bool | Literal["never"] | None

_PROTOCOLS: Final = {"tcp": {"tcp", "6"}, "udp": {"udp", "17"}}
_MOST_JUMPS: Final = 32
_RANGE: Final = re.compile(r"(\d+)-(\d+)")
_MOST_PORT: Final = 65535
# A client that is not root may take any of these.
_FREE_PORTS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection; what is rewritten is changed on the way."""

    protocol: str
    source: Address
    address: Address
    port: int
    interface: str
    out: str = ""
    is_local: bool = True
    first_address: Address | None = None
    first_port: int = 0

    @property
    def family(self) -> str:
        """Name the family as tables do."""
        return "ip" if self.source.version == 4 else "ip6"  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One way in which a connection may end: accepted or not, by which rule or policy."""

    accepted: bool
    rule: str = ""
    packet: Packet | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """How a chain was left: by a verdict, or at its end (``next``)."""

    kind: str
    packet: Packet
    rule: str = ""


@dataclass(slots=True, kw_only=True)
class Walk:
    """Walks of packets through one ruleset. ``doubts`` are rules that could not be judged.

    ``route`` tells by which interface an address is reached, ``is_local`` whether it is ours.
    """

    ruleset: Ruleset
    route: Callable[[Address], str]
    is_local: Callable[[Address], bool]
    now: float = 0.0
    doubts: dict[str, None] = field(default_factory=dict)

    def ends(self, packet: Packet) -> list[End]:
        """Give all the ways in which a new connection may end."""
        ends: list[End] = []
        after = self._hook("prerouting", [(packet, "")], ends)
        inside = [one for one in after if one[0].is_local]
        beyond = [
            (replace(one, out=self.route(one.address)), rule)
            for one, rule in after
            if not one.is_local
        ]
        for hook, going in (("input", inside), ("forward", beyond)):
            ends += [
                End(accepted=True, rule=rule, packet=one)
                for one, rule in self._hook(hook, going, ends)
            ]
        return ends

    def _hook(
        self, hook: str, packets: list[tuple[Packet, str]], ends: list[End]
    ) -> list[tuple[Packet, str]]:
        """Send packets through all chains of a hook; those that end there go to ``ends``."""
        for chain in self._chains(hook):
            after: dict[tuple[Packet, str], None] = {}
            for packet, rule in packets:
                if not self._concerns(chain, packet):
                    after[packet, rule] = None
                    continue
                for step in self._through(chain, packet):
                    if step.kind == "drop":
                        ends.append(End(accepted=False, rule=step.rule, packet=step.packet))
                    else:
                        after[step.packet, step.rule or rule] = None
            packets = list(after)
        return packets

    def _chains(self, hook: str) -> list[Chain]:
        found = [one for one in self.ruleset.chains.values() if one.hook == hook]
        return sorted(found, key=lambda one: one.priority)

    def _concerns(self, chain: Chain, packet: Packet) -> bool:
        # Only one chain rewrites where a connection goes.
        if chain.kind == "nat" and packet.first_address is not None:
            return False
        return chain.key[0] in {packet.family, "inet"}

    def _through(self, chain: Chain, packet: Packet) -> Iterator[_Step]:
        for step in self._walk(chain, packet, 0):
            if step.kind != "next":
                yield step
            elif chain.policy == "drop":
                yield _Step("drop", step.packet, f"{' '.join(chain.key)}: policy drop")
            else:
                yield _Step("accept", step.packet)

    def _walk(self, chain: Chain, packet: Packet, depth: int) -> Iterator[_Step]:
        if depth > _MOST_JUMPS:
            yield _Step("next", packet)
            return
        for rule in chain.rules:
            met = self._met(rule, packet, depth)
            if met is False:
                continue
            goes_on = met is None
            for step in self._does(rule, packet, depth):
                if step.kind == "next":
                    goes_on = True
                elif step.kind == "left":
                    yield _Step("next", packet)
                else:
                    yield step
                if met is None and step.kind != "next":
                    self.doubts[rule.describe()] = None
            if not goes_on:
                return
        yield _Step("next", packet)

    def _does(self, rule: Rule, packet: Packet, depth: int) -> Iterator[_Step]:
        """Carry out a rule that is met; ``next`` goes on behind it, ``left`` leaves the chain."""
        for part in rule.parts:
            if isinstance(part, VerdictMap):
                yield from self._looked_up(part, rule, packet, depth)
                return
            if isinstance(part, Verdict):
                yield from self._verdict(part, rule, packet, depth)
                return
        yield _Step("next", packet)

    def _verdict(
        self, verdict: Verdict, rule: Rule, packet: Packet, depth: int
    ) -> Iterator[_Step]:
        match verdict.kind:
            case "accept":
                yield _Step("accept", packet, rule.describe())
            case "drop" | "reject":
                yield _Step("drop", packet, rule.describe())
            case "return":
                yield _Step("left", packet)
            case "jump" | "goto":
                yield from self._jump(verdict, rule, packet, depth)
            case "dnat" | "redirect":
                changed = self._rewritten(packet, verdict)
                if changed is None:
                    yield from self._either(rule, packet)
                else:
                    yield _Step("accept", changed, rule.describe())
            case _:
                yield from self._either(rule, packet)

    def _either(self, rule: Rule, packet: Packet) -> Iterator[_Step]:
        """Do what a rule may do that is not understood: anything."""
        self.doubts[rule.describe()] = None
        yield _Step("accept", packet, rule.describe())
        yield _Step("drop", packet, rule.describe())

    def _jump(self, verdict: Verdict, rule: Rule, packet: Packet, depth: int) -> Iterator[_Step]:
        chain = self.ruleset.chains.get((*rule.chain[:2], verdict.to))
        if chain is None:
            yield from self._either(rule, packet)
            return
        for step in self._walk(chain, packet, depth + 1):
            # Behind a goto nothing of this chain follows.
            yield _Step("left", packet) if step.kind == "next" and verdict.kind == "goto" else step

    def _looked_up(
        self, part: VerdictMap, rule: Rule, packet: Packet, depth: int
    ) -> Iterator[_Step]:
        elements = part.elements
        if part.name:
            elements = self.ruleset.maps.get((*rule.chain[:2], part.name), ())
        for value, verdict in elements:
            test = Match(keys=part.keys, operator="==", values=(value,))
            met = self._matches(test, rule.chain, packet)
            if met is False:
                continue
            if met is None:
                self.doubts[rule.describe()] = None
            yield from self._verdict(verdict, rule, packet, depth)
            if met:
                return
        yield _Step("next", packet)

    def _rewritten(self, packet: Packet, verdict: Verdict) -> Packet | None:
        address, port = packet.address, packet.port
        try:
            if verdict.kind == "redirect":
                port = int(verdict.to) if verdict.to else port
            else:
                text, _, number = _split(verdict.to)
                address = ipaddress.ip_address(text)
                port = int(number) if number else port
        except ValueError:
            return None
        return replace(
            packet,
            address=address,
            port=port,
            is_local=self.is_local(address),
            first_address=packet.address,
            first_port=packet.port,
        )

    def _met(self, rule: Rule, packet: Packet, depth: int) -> bool | None:
        known: bool | None = True
        for part in rule.parts:
            if isinstance(part, Verdict | VerdictMap):
                break
            found = self._condition(part, rule, packet, depth)
            if found is False:
                return False
            if found is None:
                known = None
        return known

    def _condition(
        self, part: Match | Unknown | Limit, rule: Rule, packet: Packet, depth: int
    ) -> bool | None:
        if isinstance(part, Limit):
            return not part.over  # one connection is within any rate
        if isinstance(part, Match):
            own = OWN_COMMENT.fullmatch(rule.comment)
            if own is not None and part.keys == ("meta time",):
                return self.now < int(own[3])
            return self._matches(part, rule.chain, packet)
        if part.text == "xt match recent" and self._only_ends(rule, packet, depth):
            return False  # it punishes those who were here before
        return True if part.text.endswith(" set") else None

    def _only_ends(self, rule: Rule, packet: Packet, depth: int) -> bool:
        """Tell whether a rule, were it met, would only refuse."""
        verdicts = [part for part in rule.parts if isinstance(part, Verdict)]
        if not verdicts:
            return False
        kinds = {step.kind for step in self._verdict(verdicts[0], rule, packet, depth)}
        return kinds == {"drop"}

    def _matches(self, match: Match, chain: ChainKey, packet: Packet) -> bool | None:
        values: list[str] = []
        for value in match.values:
            if not value.startswith("@"):
                values.append(value)
                continue
            elements = self.ruleset.sets.get((*chain[:2], value[1:]))
            if elements is None:
                return None
            values += elements
        answers = [
            _all(
                one_value(key, word.strip(), match, packet)
                for key, word in zip(match.keys, _words(value, len(match.keys)), strict=False)
            )
            for value in values
        ]
        if any(answer == "never" for answer in answers):
            return False
        found: bool | None = False
        if any(answer is True for answer in answers):
            found = True
        elif any(answer is None for answer in answers):
            found = None
        if match.operator == "!=" and found is not None:
            return not found
        return found


def _words(value: str, count: int) -> list[str]:
    return value.split(" . ") if count > 1 else [value]


def _all(answers: Iterator[Answer]) -> Answer:
    found: Answer = True
    for answer in answers:
        if answer == "never":
            return "never"
        if answer is False:
            found = False
        elif answer is None and found is True:
            found = None
    return found


def one_value(key: str, value: str, match: Match, packet: Packet) -> Answer:
    """Compare one thing of a packet with one value.

    ``never`` means that the packet has no such thing, so that not even ``!=`` holds.
    """
    if match.operator in {"<", ">", "<=", ">="}:
        return None
    family, _, rest = key.partition(" ")
    if family in {"tcp", "udp", "th", "sctp", "dccp", "udplite"}:
        if family not in {packet.protocol, "th"}:
            return "never"
        return _transport(rest, value, match, packet)
    read = _READERS.get(family)
    return None if read is None else read(key, value, packet)


def _incoming(_key: str, value: str, packet: Packet) -> Answer:
    return _interface(value, packet.interface)


def _outgoing(_key: str, value: str, packet: Packet) -> Answer:
    return _interface(value, packet.out) if packet.out else "never"


def _never(_key: str, _value: str, _packet: Packet) -> Answer:
    return "never"


def _fib(key: str, value: str, packet: Packet) -> Answer:
    if key == "fib daddr type":
        return _type(value, packet)
    if key.startswith("fib saddr") and key.endswith("oif"):
        return {"exists": True, "missing": False, "0": False}.get(value)
    return None


def _header(key: str, value: str, packet: Packet) -> Answer:
    family, _, name = key.partition(" ")
    if family != packet.family:
        return "never"
    if name == "saddr":
        return within(packet.source, value)
    if name == "daddr":
        return within(packet.address, value)
    if name in {"protocol", "nexthdr"}:
        return value in _PROTOCOLS[packet.protocol]
    return None


def _transport(name: str, value: str, match: Match, packet: Packet) -> bool | None:
    if name == "dport":
        return _port(packet.port, value)
    if name == "sport":
        # Whoever connects chooses it: only what holds for all or for none is known.
        ends = _RANGE.fullmatch(value)
        wide = ends is not None and int(ends[1]) <= _FREE_PORTS and int(ends[2]) == _MOST_PORT
        return True if wide else None
    if name == "flags":
        if match.mask:
            return value.strip("()") == "syn" if "syn" in match.mask else None
        return value == "syn"
    return None


def _meta(key: str, value: str, packet: Packet) -> Answer:
    name = key.partition(" ")[2]
    if name == "l4proto":
        return value in _PROTOCOLS[packet.protocol]
    if name == "nfproto":
        return value == ("ipv4" if packet.family == "ip" else "ipv6")
    if name == "protocol":
        return value == packet.family
    if name == "pkttype":
        return value in {"host", "unicast"}
    return None


def _ct(key: str, value: str, packet: Packet) -> Answer:
    name = key.partition(" ")[2].replace(" ip6 ", " ").replace(" ip ", " ")
    known = {"state": value == "new", "direction": value == "original"}
    if name == "status":
        return packet.first_address is not None if value == "dnat" else None
    if name == "original proto-dst":
        return _port(packet.first_port or packet.port, value)
    if name == "original daddr":
        return within(packet.first_address or packet.address, value)
    if name == "original saddr":
        return within(packet.source, value)
    return known.get(name)


def _type(value: str, packet: Packet) -> bool | None:
    if value == "local":
        return packet.is_local
    if value in {"broadcast", "multicast", "anycast"}:
        return False
    return not packet.is_local if value == "unicast" else None


def _interface(value: str, name: str) -> bool:
    wanted = value.strip('"')
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _port(port: int, value: str) -> bool | None:
    ends = _RANGE.fullmatch(value)
    if ends is not None:
        return int(ends[1]) <= port <= int(ends[2])
    return port == int(value) if value.isdecimal() else None


def within(address: Address, value: str) -> bool | None:
    """Tell whether an address is that value, or in that prefix or range."""
    try:
        low, high = span(value)
    except ValueError:
        return None
    if low.version != address.version:
        return False
    return int(low) <= int(address) <= int(high)


def span(value: str) -> tuple[Address, Address]:
    """Give the first and the last address of a prefix or a range. Raises ValueError."""
    first, dash, last = value.partition("-")
    if dash:
        return ipaddress.ip_address(first), ipaddress.ip_address(last)
    network = ipaddress.ip_network(value, strict=False)
    return network[0], network[-1]


def _split(text: str) -> tuple[str, str, str]:
    """Part ``1.2.3.4:80``, ``[::1]:80`` or either without a port."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, ":", port.lstrip(":")
    if text.count(":") > 1:
        return text, "", ""
    return text.partition(":")


def spans(ruleset: Ruleset) -> Sequence[tuple[Address, Address]]:
    """Collect the addresses that any rule, set or map asks for."""
    found: dict[tuple[Address, Address], None] = {}
    for value in _asked(ruleset):
        for word in value.split(" . "):
            # Names of interfaces and numbers are no addresses.
            if "." in word or ":" in word:
                with contextlib.suppress(ValueError):
                    found[span(word)] = None
    return list(found)


def _asked(ruleset: Ruleset) -> Iterator[str]:
    for each in ruleset.sets.values():
        yield from each or ()
    for pairs in ruleset.maps.values():
        yield from (value for value, _ in pairs)
    for chain in ruleset.chains.values():
        for rule in chain.rules:
            for part in rule.parts:
                if isinstance(part, Match):
                    yield from part.values
                elif isinstance(part, VerdictMap):
                    yield from (value for value, _ in part.elements)


_READERS: Final[dict[str, Callable[[str, str, Packet], Answer]]] = {
    "iif": _incoming,
    "iifname": _incoming,
    "oif": _outgoing,
    "oifname": _outgoing,
    "ip": _header,
    "ip6": _header,
    "icmp": _never,
    "icmpv6": _never,
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
}
