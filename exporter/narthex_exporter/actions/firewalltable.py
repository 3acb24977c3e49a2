"""Write our own nftables table, ``inet narthex``, in whole from its rules.

It sees packets to this machine before anything rewrites where they go: so it judges a published
container's port like any other. What it drops is gone; what it accepts, the other tables judge
next, as every base chain does with what another one accepted. Of two rules the one for the
narrower source decides, then the one that names a port, then the refusal.
"""

import hashlib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from narthex_exporter.contract.firewallfacts import FirewallRuleFact, FirewallSettings
from narthex_exporter.contract.steps import RUN

FILE: Final = "/etc/nftables.d/narthex.nft"
UNIT: Final = "narthex-firewall.service"
UNIT_FILE: Final = f"/etc/systemd/system/{UNIT}"
UNIT_TEXT: Final = f"""\
[Unit]
Description=Narthex's own firewall table
Documentation=man:nft(8)
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
# That one may flush all tables: ours is loaded after it, and again whenever it is.
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
ConditionPathExists={FILE}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {FILE}
ExecReload=/usr/sbin/nft -f {FILE}

[Install]
WantedBy=sysinit.target
"""
NONE: Final = "add table inet narthex\ndelete table inet narthex\n"

_HEAD: Final = """\
table inet narthex {
"""
_GUARD: Final = """\
	chain guard {
		type filter hook prerouting priority -150; policy accept;
		iif "lo" accept
		fib daddr type != local accept
		ct state established,related accept
		meta l4proto { 1, 58 } accept
"""
_RANKS: Final = {"drop": 0, "reject": 0, "limit": 1, "accept": 2, "forward": 2}
_TIME: Final = re.compile(r'meta time < (?:"[^"]*"|\d+)')
# Whom a rate was counted for, which the kernel alone keeps.
_COUNTED: Final = re.compile(r"elements = \{[^}]*\}")
_ALWAYS: Final = 'comment "narthex always"'


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRule:
    """One rule of ours.

    ``action`` is ``accept``, ``drop``, ``limit`` or ``forward``; ``protocol`` and ``ports`` empty
    for all; ``source`` a network, empty for all. ``until`` is Unix time, 0 for ever.
    """

    action: str
    protocol: str = ""
    ports: str = ""
    source: str = ""
    to: str = ""
    masquerade: bool = False
    per_minute: int = 0
    until: int = 0
    comment: str = ""
    run: str = RUN

    @property
    def id(self) -> str:
        """Name the rule by what it does, so that the same rule has the same name."""
        words = (
            self.action, self.protocol, self.ports, self.source, self.to, str(self.per_minute),
        )  # fmt: skip
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]

    @property
    def told(self) -> str:
        """What its comment says, for machines and people."""
        return f"n1 {self.id} {self.run} {self.until} {self.comment}".rstrip()


def own_rules(facts: Sequence[FirewallRuleFact], *, ended: bool = False) -> list[OwnRule]:
    """Take our own rules, with those that have ended and still stand there only if asked."""
    return [
        OwnRule(
            action=one.action,
            protocol=one.protocol,
            ports=one.ports,
            source=str(ipaddress.ip_network(one.source)) if one.source else "",
            to=one.to,
            masquerade=one.masquerade,
            per_minute=one.limit_per_minute if one.action == "limit" else 0,
            until=one.expires_at_seconds,
            comment=one.comment,
            run=one.run or "-",
        )
        for one in facts
        if one.owner == "narthex" and one.backend == "nftables" and (ended or not one.is_expired)
    ]


def render(rules: Sequence[OwnRule], settings: FirewallSettings, *, drops: bool) -> str:
    """Write the table as nft prints it; empty where nothing would stand in it."""
    if not rules and not drops:
        return ""
    ordered = sorted(rules, key=_order)
    parts = [_HEAD]
    parts += [text for rule in ordered if rule.action == "limit" for text in _sets(rule)]
    parts.append(_GUARD)
    parts += [f"\t\t{line} accept {_ALWAYS}\n" for line in _always(settings)]
    parts += [f"\t\t{line}\n" for rule in ordered for line in _lines(rule)]
    if drops:
        parts.append('\t\tdrop comment "narthex default"\n')
    parts.append("\t}\n")
    forwards = [rule for rule in ordered if rule.action == "forward"]
    if forwards:
        parts += _redirects(forwards)
    return "".join(parts) + "}\n"


def script(table: str) -> str:
    """Write what makes our table be this text, at once or not at all, whatever it was before."""
    return NONE + table


def uncounted(table: str) -> str:
    """Leave out of what nft prints whom a rate was counted for."""
    return _COUNTED.sub("", table)


def same(one: str, other: str) -> bool:
    """Tell whether two texts are the same table but for who is always let in."""
    return _bare(one) == _bare(other)


def _bare(text: str) -> list[str]:
    lines = (_TIME.sub("meta time < T", line.strip()) for line in uncounted(text).splitlines())
    return [line for line in lines if line and not line.endswith(_ALWAYS)]


def _order(rule: OwnRule) -> tuple[int, int, int, str]:
    width = 0
    if rule.source:
        network = ipaddress.ip_network(rule.source)
        # IPv4 and IPv6 never meet: each has its own scale.
        width = network.prefixlen + 1
    return (-width, 0 if rule.ports else 1, _RANKS.get(rule.action, 2), rule.id)


def _always(settings: FirewallSettings) -> Iterator[str]:
    for source, port in settings.always_allow:
        yield " ".join(filter(None, (_source(source), f"tcp dport {port}" if port else "")))


def _source(source: str) -> str:
    if not source:
        return ""
    network = ipaddress.ip_network(source)
    family = "ip" if network.version == 4 else "ip6"  # noqa: PLR2004
    alone = network.prefixlen == network.max_prefixlen
    return f"{family} saddr {network.network_address if alone else network}"


def _what(rule: OwnRule) -> str:
    """Write the conditions of a rule."""
    ports = f"{rule.protocol} dport {rule.ports}" if rule.ports else ""
    until = f"meta time < {rule.until}" if rule.until else ""
    return " ".join(filter(None, (_source(rule.source), ports, until)))


def _lines(rule: OwnRule) -> Iterator[str]:
    comment = f'comment "{rule.told}"'
    if rule.action != "limit":
        verdict = "accept" if rule.action == "forward" else rule.action
        yield " ".join(filter(None, (_what(rule), verdict, comment)))
        return
    rate = f"limit rate over {rule.per_minute}/minute burst {rule.per_minute} packets"
    for family, name in _limited(rule):
        yield f"{_what(rule)} update @{name} {{ {family} saddr {rate} }} drop {comment}"


def _limited(rule: OwnRule) -> Iterator[tuple[str, str]]:
    version = ipaddress.ip_network(rule.source).version if rule.source else 0
    if version != 6:  # noqa: PLR2004
        yield "ip", f"limited4_{rule.id}"
    if version != 4:  # noqa: PLR2004
        yield "ip6", f"limited6_{rule.id}"


def _sets(rule: OwnRule) -> Iterator[str]:
    for family, name in _limited(rule):
        kind = "ipv4_addr" if family == "ip" else "ipv6_addr"
        yield (
            f"\tset {name} {{\n\t\ttype {kind}\n\t\tsize 65535\n"
            "\t\tflags dynamic,timeout\n\t\ttimeout 2m\n\t}\n"
        )


def _redirects(rules: Sequence[OwnRule]) -> Iterator[str]:
    yield "\tchain redirects {\n"
    yield "\t\ttype nat hook prerouting priority -110; policy accept;\n"
    for rule in rules:
        verdict = f'dnat ip to {rule.to} comment "{rule.told}"'
        yield f"\t\tfib daddr type local {_what(rule)} {verdict}\n"
    yield "\t}\n"
    if not any(rule.masquerade for rule in rules):
        return
    yield "\tchain returns {\n"
    yield "\t\ttype nat hook postrouting priority 110; policy accept;\n"
    for rule in rules:
        if rule.masquerade:
            address, _, port = rule.to.partition(":")
            yield (
                f"\t\tct status dnat ip daddr {address} {rule.protocol} dport {port}"
                f' masquerade comment "{rule.told}"\n'
            )
    yield "\t}\n"
