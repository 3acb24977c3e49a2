"""Read the packet filters of this node: nftables, and ufw or firewalld where they are in force."""

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.contract.facts import FileFacts
from narthex_exporter.contract.firewallfacts import (
    FirewallBackendFact,
    FirewallPolicyFact,
    FirewallRuleFact,
    FirewallSettings,
    ReachFact,
    VerdictFact,
)
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.firewall import parse_ufw_enabled
from narthex_exporter.sources.firewallmodel import (
    OWN_TABLE,
    firewalld_policies,
    firewalld_rules,
    nft_policies,
    nft_rules,
    ufw_policies,
    ufw_rules,
)
from narthex_exporter.sources.nftparse import LIST, Ruleset, parse_ruleset, table_text
from narthex_exporter.sources.reachability import Layout, Reachability, read_layout

_LEFT_OUT: Final = "[... left out ...]"
_NO_PROGRAM: Final = 127
_LEGACY: Final = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
_RULES: Final = (("/etc/ufw/user.rules", 4), ("/etc/ufw/user6.rules", 6))
_ASK_SECONDS: Final = 10.0


@dataclass(slots=True, kw_only=True)
class View:
    """The packet filters at one look. See ``FirewallView``."""

    text: str
    settings: FirewallSettings
    manager: str
    backends: Sequence[FirewallBackendFact]
    policies: Sequence[FirewallPolicyFact]
    rules: Sequence[FirewallRuleFact]
    ruleset: Ruleset
    layout: Layout
    now_seconds: float
    blind: str = ""
    _judges: dict[str | None, Reachability] = field(default_factory=dict, init=False)

    @property
    def own_table(self) -> str:
        """The table of ours, as nft prints it."""
        return table_text(self.text, *OWN_TABLE)

    @property
    def forwards(self) -> Sequence[FirewallRuleFact]:
        """The rules that send connections elsewhere."""
        return [one for one in self.rules if one.action == "forward" and one.direction == "input"]

    def judge(
        self, protocol: str, port: int, source: str, *, own_table: str | None = None
    ) -> VerdictFact:
        """Tell what would become of a new connection."""
        return self._judge(own_table).judge(protocol, "", port, ipaddress.ip_address(source))

    def reach(
        self, protocol: str, address: str, port: int, *, own_table: str | None = None
    ) -> ReachFact:
        """Tell from where a listener can be reached."""
        return self._judge(own_table).reach(protocol, address, port)

    def _judge(self, own_table: str | None) -> Reachability:
        if own_table not in self._judges:
            ruleset = self.ruleset
            if own_table is not None:
                ruleset = ruleset.without(*OWN_TABLE).joined(parse_ruleset(own_table))
            self._judges[own_table] = Reachability(
                ruleset=ruleset, layout=self.layout, now=self.now_seconds, blind=self.blind
            )
        return self._judges[own_table]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallRules:
    """The packet filters of our network namespace. ``run`` is the actor's runner."""

    run: Callable[[RunProgram], Outcome]
    files: FileFacts
    settings: Callable[[], FirewallSettings] = FirewallSettings
    layout: Callable[[], Layout] = read_layout
    now: Callable[[], float] = time.time

    def look(self) -> View:
        """Read them all. Raises UnavailableError."""
        text, blind = self._nft()
        ruleset, now = parse_ruleset(text), self.now()
        ufw, firewalld, zones = self._ufw(), *self._firewalld()
        rules = list(nft_rules(ruleset, now=now))
        policies = list(nft_policies(ruleset))
        if ufw.installed:
            policies += ufw_policies(self.files.read("/etc/default/ufw") or "")
            for path, version in _RULES:
                rules += ufw_rules(self.files.read(path) or "", version=version)
        rules += firewalld_rules(zones)
        policies += firewalld_policies(zones)
        nftables = FirewallBackendFact(
            name="nftables", installed=True, active=bool(ruleset.chains), why=blind
        )
        return View(
            text=text,
            settings=self.settings(),
            manager="firewalld" if firewalld.active else "ufw" if ufw.active else "nftables",
            backends=(nftables, ufw, firewalld),
            policies=policies,
            rules=rules,
            ruleset=ruleset,
            layout=self.layout(),
            now_seconds=now,
            blind=blind,
        )

    def _nft(self) -> tuple[str, str]:
        """Give what nft prints, and what it does not show of what is in force."""
        done = self._ask(LIST)
        blind = ""
        if done.code == 0 and _LEFT_OUT in done.output:
            done = self._ask((*LIST[:1], "--terse", *LIST[1:]))
            blind = "the sets are too large to be read"
        if done.code != 0:
            why = done.output.strip().partition("\n")[0][:300]
            hint = "install the package nftables" if done.code == _NO_PROGRAM else ""
            raise UnavailableError(f"the packet filter cannot be read: {why}", hint=hint)
        if _LEFT_OUT in done.output:
            raise UnavailableError("the ruleset is too large to be read")
        if any((self.files.read(path) or "").strip() for path in _LEGACY):
            blind = "iptables-legacy has rules in force, which nftables does not show"
        return done.output, blind

    def _ufw(self) -> FirewallBackendFact:
        settings = self.files.read("/etc/ufw/ufw.conf")
        enabled = parse_ufw_enabled((settings or "").encode())
        return FirewallBackendFact(name="ufw", installed=settings is not None, active=enabled)

    def _firewalld(self) -> tuple[FirewallBackendFact, str]:
        state = self._ask(("firewall-cmd", "--state"))
        active = state.code == 0
        zones, why = "", ""
        if active:
            listed = self._ask(("firewall-cmd", "--list-all-zones"))
            if listed.code == 0:
                zones = listed.output
            else:
                why = f"its zones cannot be read: {listed.output.strip()[:200]}"
        return (
            FirewallBackendFact(
                name="firewalld", installed=state.code != _NO_PROGRAM, active=active, why=why
            ),
            zones,
        )

    def _ask(self, argv: tuple[str, ...]) -> Outcome:
        return self.run(RunProgram(argv=argv, timeout_seconds=_ASK_SECONDS))
