"""Act on the packet filter: each change is brought back unless the operator confirms it."""

import datetime as dt
import enum
import ipaddress
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, Field, model_validator
from typing_extensions import Self, override

from narthex_exporter.actions import firewallufw as ufw
from narthex_exporter.actions.firewalltable import (
    FILE,
    NONE,
    UNIT,
    UNIT_FILE,
    UNIT_TEXT,
    OwnRule,
    own_rules,
    render,
    same,
    script,
    uncounted,
)
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import (
    ConnectionFact,
    Facts,
    FirewallView,
    ListenerFact,
)
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import (
    Confirm,
    Guard,
    Note,
    RemoveFile,
    RunProgram,
    Step,
    Undo,
    WriteFile,
)

# Beyond the time that a policy may give for a confirmation.
_TIMEOUT_SECONDS: Final = 700
_MOST_PORTS: Final = 1024
_EXPORTER_PORT: Final = 19100
_SSH_PORT: Final = 22
_SHOWN: Final = 8
# Somebody in no network that a node knows by itself: TEST-NET-2 and the documentation's prefix.
_ANYBODY: Final = ("198.51.100.77", "2001:db8::77")
_ALL: Final = "any"


class Protocol(enum.StrEnum):
    """What a port belongs to."""

    TCP = "tcp"
    UDP = "udp"


class DefaultPolicy(enum.StrEnum):
    """What becomes of a new connection that no rule decides."""

    ACCEPT = "accept"
    DROP = "drop"


class Backend(enum.StrEnum):
    """What can be turned on and off."""

    NFTABLES = "nftables"
    UFW = "ufw"


def _network(text: str) -> str:
    """Write a network as one is written, with its length. Raises ValueError."""
    if not text:
        return ""
    network = ipaddress.ip_network(text)
    return "" if network.prefixlen == 0 else str(network)


Port = Annotated[
    int,
    Field(
        title="Port", description="The port on this node.", examples=[443], ge=1, le=65535,
        strict=True,
    ),
]  # fmt: skip
LastPort = Annotated[
    int,
    Field(
        title="Last port", description="For a range: its last port. 0 for one port only.",
        examples=[0], ge=0, le=65535, strict=True,
    ),
]  # fmt: skip
Source = Annotated[
    str,
    Field(
        title="From",
        description="An address or a network, such as 10.0.0.0/24. Empty for anywhere.",
        examples=["10.0.0.0/24"],
        pattern=r"^[0-9a-fA-F:./]*$",
        max_length=43,
    ),
    AfterValidator(_network),
]
Comment = Annotated[
    str,
    Field(
        title="Comment",
        description="What the rule is for. It stands beside the rule in the node's own tools.",
        examples=["shop, ticket 4711"],
        pattern=r"^[A-Za-z0-9 ._,:/@+()\-]*$",
        max_length=60,
    ),
]
Until = Annotated[
    AwareDatetime | None,
    Field(
        title="Until",
        description="When the rule ends by itself, with its time zone. Empty for never.",
        examples=["2030-01-31T18:00:00Z"],
    ),
]


class FirewallParams(Params):
    """Parameters of every firewall action; one at a time changes a firewall."""

    @property
    @override
    def resource(self) -> str:
        return "firewall/rules"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("port", (_ALL,), "it concerns every port")


class PortParams(FirewallParams):
    """What names a port, or a range of ports, and who reaches it."""

    protocol: Annotated[Protocol, Field(title="Protocol")] = Protocol.TCP
    port: Port
    last_port: LastPort = 0
    source: Source = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last_port and not self.port < self.last_port < self.port + _MOST_PORTS:
            raise ValueError(
                f"a range ends behind its first port, and holds at most {_MOST_PORTS} ports"
            )
        return self

    @property
    def ports(self) -> str:
        """The port or range in the words of the model."""
        return f"{self.port}-{self.last_port}" if self.last_port else str(self.port)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        for port in range(self.port, (self.last_port or self.port) + 1):
            yield Target("port", (f"{port}/{self.protocol}", str(port)))


class RuleParams(PortParams):
    """Parameters of firewall.open-port."""

    until: Until = None
    comment: Comment = ""


class LimitParams(PortParams):
    """Parameters of firewall.limit."""

    per_minute: Annotated[
        int,
        Field(
            title="Connections per minute",
            description="New connections from one address; more are dropped.",
            examples=[6], ge=1, le=10_000, strict=True,
        ),
    ] = 6  # fmt: skip
    until: Until = None
    comment: Comment = ""


class SourceParams(FirewallParams):
    """Parameters of what allows or denies a source: to one port, or to all."""

    source: Source
    protocol: Annotated[Protocol, Field(title="Protocol")] = Protocol.TCP
    port: Annotated[
        int,
        Field(
            title="Port", description="The port on this node, 0 for all of every protocol.",
            examples=[0], ge=0, le=65535, strict=True,
        ),
    ] = 0  # fmt: skip
    until: Until = None
    comment: Comment = ""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        if not self.port:
            yield from FirewallParams.targets(self, facts)
            return
        yield Target("port", (f"{self.port}/{self.protocol}", str(self.port)))


class ForwardParams(FirewallParams):
    """Parameters of firewall.forward."""

    protocol: Annotated[Protocol, Field(title="Protocol")] = Protocol.TCP
    port: Port
    to_address: Annotated[
        str,
        Field(
            title="To address", description="The IPv4 address that takes the connections.",
            examples=["10.0.0.5"], pattern=r"^[0-9.]+$", max_length=15,
        ),
        AfterValidator(lambda text: str(ipaddress.IPv4Address(text))),
    ]  # fmt: skip
    to_port: Annotated[int, Field(title="To port", examples=[80], ge=1, le=65535, strict=True)]
    source: Source = ""
    masquerade: Annotated[
        bool,
        Field(
            title="As if from here",
            description="The target sees this node's address, and answers through it.",
        ),
    ] = True
    until: Until = None
    comment: Comment = ""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("port", (f"{self.port}/{self.protocol}", str(self.port)))


class RemoveParams(FirewallParams):
    """Parameters of firewall.remove-rule."""

    rule: Annotated[
        str,
        Field(
            title="Rule", description="The id of a rule that Narthex made.",
            examples=["1a2b3c4d"], pattern=r"^[0-9a-f]{8}$",
        ),
    ]  # fmt: skip

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        rule = next((one for one in _own(facts.firewall.look()) if one.id == self.rule), None)
        if rule is None:
            return  # the plan refuses that
        if not rule.ports:
            yield Target("port", (_ALL,), "the rule concerns every port")
            return
        first, _, last = rule.ports.partition("-")
        for port in range(int(first), int(last or first) + 1):
            yield Target("port", (f"{port}/{rule.protocol}", str(port)))


class PolicyParams(FirewallParams):
    """Parameters of firewall.set-default-policy."""

    policy: Annotated[
        DefaultPolicy,
        Field(title="Policy", description="For new connections to this node without a rule."),
    ]


class BackendParams(FirewallParams):
    """Parameters of what turns a backend on or off."""

    backend: Annotated[
        Backend, Field(title="Backend", description="nftables means Narthex's own table.")
    ] = Backend.NFTABLES


def as_it_is(params: FirewallParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: ARG001, FBT001
    """Tell how many rules of ours there are, and what is done without one."""
    view = facts.firewall.look()
    state: dict[str, object] = {"manager": view.manager, "rules": len(_own(view))}
    state["default"] = "drop" if _drops(view) else "accept"
    if isinstance(params, PortParams):
        reach = view.reach(params.protocol, "0.0.0.0", params.port)  # noqa: S104 - a question
        state["reachable_from"] = ", ".join(reach.networks) or reach.scope
    return Aftermath(state=state)


@action(
    name="firewall.open-port",
    title="Open a port",
    danger=Danger.DISRUPTIVE,
    inverse="firewall.close-port",
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def open_port(params: RuleParams, facts: Facts) -> Planned:
    """Let new connections to a port in, from anywhere or from one network.

    With ufw in force the rule is ufw's. It is refused where another rule would still drop what
    it lets in: in nftables no accept undoes another chain's drop.
    """
    view = _view(facts)
    rule = _rule("accept", params, params.until, params.comment, view)
    yield from _listening(params, facts)
    yield Undo(action="firewall.close-port", params=_named(params))
    yield from _add(rule, view, facts)


@action(
    name="firewall.close-port",
    title="Close a port",
    danger=Danger.DISRUPTIVE,
    inverse="firewall.open-port",
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def close_port(params: PortParams, facts: Facts) -> Planned:
    """Take back a rule of Narthex's that opens a port.

    Rules that others made stay. Connections that are open stay so.
    """
    view = _view(facts)
    rules = [
        one
        for one in _own(view)
        if one.action == "accept"
        and (one.protocol, one.ports, one.source) == (params.protocol, params.ports, params.source)
    ]
    if not rules:
        raise RefusedError(
            f"no rule of Narthex's opens port {params.ports}/{params.protocol}"
            f" from {params.source or 'anywhere'}",
            hint="to refuse connections whatever lets them in, deny the source",
        )
    yield Undo(action="firewall.open-port", params=_again(rules[0]) | _named(params))
    yield from _remove(rules[0], view, facts)


@action(
    name="firewall.allow-source",
    title="Allow a source",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def allow_source(params: SourceParams, facts: Facts) -> Planned:
    """Let one address or network in, to one port or to all.

    Of two rules the one for the narrower source decides.
    """
    if not params.source:
        raise RefusedError("it names no source", hint="open a port to let everybody in")
    view = _view(facts)
    rule = _of_source("accept", params, view)
    yield Undo(action="firewall.remove-rule", params={"rule": rule.id})
    yield from _add(rule, view, facts)


@action(
    name="firewall.deny-source",
    title="Deny a source",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def deny_source(params: SourceParams, facts: Facts) -> Planned:
    """Drop new connections from one address or network, or from anywhere, to a port or to all.

    A published container's port is closed too. Connections that are open stay so. It is refused
    where it would cut who is connected by SSH, or the operator and Prometheus.
    """
    if not params.source and not params.port:
        raise RefusedError(
            "it names neither a source nor a port", hint="set the default policy instead"
        )
    view = _view(facts)
    rule = _of_source("drop", params, view)
    yield Undo(action="firewall.remove-rule", params={"rule": rule.id})
    yield from _add(rule, view, facts)


@action(
    name="firewall.limit",
    title="Limit new connections",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def limit(params: LimitParams, facts: Facts) -> Planned:
    """Drop new connections to a port from an address that makes too many of them.

    What is within the limit goes on to the other rules. ufw has one rate only: six in 30 seconds.
    """
    view = _view(facts)
    rule = _rule("limit", params, params.until, params.comment, view, params.per_minute)
    yield Undo(action="firewall.remove-rule", params={"rule": rule.id})
    yield from _add(rule, view, facts)


@action(
    name="firewall.forward",
    title="Forward a port",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def forward(params: ForwardParams, facts: Facts) -> Planned:
    """Send new connections to a port here on to another machine or container.

    The node must forward packets already (net.ipv4.ip_forward), and its forward rules let them
    through: it is refused where they do not.
    """
    view = _view(facts)
    if (facts.files.read("/proc/sys/net/ipv4/ip_forward") or "").strip() != "1":
        raise RefusedError(
            "this node forwards no packets",
            hint="set net.ipv4.ip_forward=1 in /etc/sysctl.d, which makes it a router",
        )
    if _manager(view) != "nftables":
        raise RefusedError(
            f"{view.manager} is in force, and forwards are not among the rules that we give to it",
            hint=f"use {view.manager}'s own tools for this",
        )
    held = _holders(facts, params.protocol, params.port)
    if held:
        yield Note(text=f"{held} will get no new connections from elsewhere on this port")
    rule = OwnRule(
        action="forward",
        protocol=params.protocol,
        ports=str(params.port),
        source=params.source,
        to=f"{params.to_address}:{params.to_port}",
        masquerade=params.masquerade,
        until=_until(params.until, view),
        comment=params.comment,
    )
    yield Undo(action="firewall.remove-rule", params={"rule": rule.id})
    yield from _add(rule, view, facts)


@action(
    name="firewall.remove-rule",
    title="Remove a firewall rule",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def remove_rule(params: RemoveParams, facts: Facts) -> Planned:
    """Take back one rule that Narthex made. Rules that others made stay."""
    view = _view(facts)
    rule = next((one for one in _own(view) if one.id == params.rule), None)
    if rule is None:
        raise RefusedError(
            f"there is no rule {params.rule} of Narthex's",
            hint="it may have ended or been removed: refresh the list",
        )
    yield _undo_of(rule)
    yield from _remove(rule, view, facts)


@action(
    name="firewall.set-default-policy",
    title="Set the default policy",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def set_default_policy(params: PolicyParams, facts: Facts) -> Planned:
    """Say what becomes of new connections to this node that no rule decides.

    With drop, published containers' ports are closed as well where no rule opens them. ICMP and
    what answers the node's own connections always pass. With ufw in force it is ufw's default.
    """
    view = _view(facts)
    drops = params.policy is DefaultPolicy.DROP
    before = DefaultPolicy.DROP if _drops(view) else DefaultPolicy.ACCEPT
    if before is params.policy:
        yield Note(text=f"the default policy is {params.policy} already: there is nothing to do")
        return
    yield Undo(action="firewall.set-default-policy", params={"policy": str(before)})
    if _manager(view) == "ufw":
        if drops:
            _check_let_in(view, facts)
        word = "deny" if drops else "allow"
        yield from _by_ufw([ufw.ufw("default", word, "incoming")], view, facts)
        return
    yield from _by_table(own_rules(view.rules), view, facts, drops=drops)


@action(
    name="firewall.enable",
    title="Turn a firewall on",
    danger=Danger.DISRUPTIVE,
    inverse="firewall.disable",
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def enable(params: BackendParams, facts: Facts) -> Planned:
    """Put ufw in force, or Narthex's own table as it was kept on disk, now and at boot."""
    view = facts.firewall.look()
    if params.backend is Backend.UFW:
        found = next(one for one in view.backends if one.name == "ufw")
        if not found.installed:
            raise RefusedError("ufw is not installed", hint="install the package ufw")
        if found.active:
            yield Note(text="ufw is in force already: there is nothing to do")
            return
        if own_rules(view.rules):
            raise RefusedError(
                "Narthex's own table is in force: two firewalls would judge each packet",
                hint="turn it off first, then give its rules to ufw",
            )
        if any(
            one.place == "ufw" and one.direction == "input" and one.policy != "accept"
            for one in view.policies
        ):
            _check_let_in(view, facts)
        yield from _by_ufw([ufw.ufw("enable")], view, facts)
        return
    if view.own_table:
        yield Note(text="Narthex's table is in force already: there is nothing to do")
        return
    if _manager(view) != "nftables":
        raise RefusedError(
            f"{view.manager} is in force: two firewalls would judge each packet",
            hint=f"give the rules to {view.manager}, or turn that off",
        )
    kept = facts.files.read(FILE)
    if kept is None:
        raise RefusedError(
            f"there is no {FILE}: no rules were kept", hint="open a port, or deny a source"
        )
    table = kept.removeprefix(NONE)
    yield from _cut(view, facts, table)
    yield from _guarded(script(table), view, facts)
    yield Confirm()
    yield from _at_boot(facts)


@action(
    name="firewall.disable",
    title="Turn a firewall off",
    danger=Danger.DISRUPTIVE,
    inverse="firewall.enable",
    timeout_seconds=_TIMEOUT_SECONDS,
    after=as_it_is,
)
def disable(params: BackendParams, facts: Facts) -> Planned:
    """Take ufw, or Narthex's own table, out of force, now and at boot. Its rules stay on disk.

    What it kept out can then reach this node.
    """
    view = facts.firewall.look()
    if params.backend is Backend.UFW:
        if not any(one.active for one in view.backends if one.name == "ufw"):
            raise RefusedError("ufw is not in force", hint="there is nothing to turn off")
        yield from _by_ufw([ufw.ufw("disable")], view, facts)
        return
    if not view.own_table:
        raise RefusedError("Narthex's table is not in force", hint="there is nothing to turn off")
    yield from _guarded(NONE, view, facts)
    yield Confirm()
    unit = None if facts.units.unavailable() else facts.units.get(UNIT)
    if unit is not None and unit.unit_file_state == "enabled":
        yield RunProgram(argv=("systemctl", "disable", "--quiet", "--", UNIT))


def _view(facts: Facts) -> FirewallView:
    view = facts.firewall.look()
    _manager(view)
    return view


def _manager(view: FirewallView) -> str:
    """Name the backend by which changes go. Raises RefusedError where none does."""
    if view.manager == "firewalld":
        raise RefusedError(
            "firewalld is in force, which keeps neither owners nor comments of rules:"
            " Narthex shows its zones and does not change them",
            hint="use firewall-cmd on the node; a second firewall beside it would fight with it",
        )
    return view.manager


def _own(view: FirewallView) -> list[OwnRule]:
    return own_rules(view.rules) + ufw.own_ufw_rules(view.rules)


def _drops(view: FirewallView) -> bool:
    place = "ufw" if view.manager == "ufw" else "inet narthex guard"
    return any(
        one.place == place and one.direction == "input" and one.policy in {"drop", "reject"}
        for one in view.policies
    )


def _until(until: AwareDatetime | None, view: FirewallView) -> int:
    if until is None:
        return 0
    seconds = int(until.timestamp())
    if seconds <= view.now_seconds:
        raise RefusedError("its end is past", hint="choose a later time, with its time zone")
    if view.manager == "ufw":
        raise RefusedError("ufw knows no rules that end by themselves", hint="leave the end out")
    return seconds


def _rule(
    verdict: str,
    params: PortParams,
    until: AwareDatetime | None,
    comment: str,
    view: FirewallView,
    per_minute: int = 0,
) -> OwnRule:
    return OwnRule(
        action=verdict,
        protocol=params.protocol,
        ports=params.ports,
        source=params.source,
        per_minute=per_minute if view.manager != "ufw" or not per_minute else 12,
        until=_until(until, view),
        comment=comment,
    )


def _of_source(verdict: str, params: SourceParams, view: FirewallView) -> OwnRule:
    return OwnRule(
        action=verdict,
        protocol=params.protocol if params.port else "",
        ports=str(params.port or ""),
        source=params.source,
        until=_until(params.until, view),
        comment=params.comment,
    )


def _named(params: PortParams) -> dict[str, object]:
    names = ("protocol", "port", "last_port", "source")
    told = params.model_dump(mode="json")
    return {name: told[name] for name in names}


def _again(rule: OwnRule) -> dict[str, object]:
    """Give what makes a rule again, but for what names it."""
    again: dict[str, object] = {"comment": rule.comment}
    return again | ({"until": _instant(rule.until)} if rule.until else {})


def _instant(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat()


def _undo_of(rule: OwnRule) -> Undo:
    """Give the action that makes a rule again."""
    first, _, last = rule.ports.partition("-")
    named: dict[str, object] = {"source": rule.source} | _again(rule)
    if rule.ports:
        named |= {"protocol": rule.protocol, "port": int(first)}
    if rule.action == "forward":
        address, _, port = rule.to.partition(":")
        more = {"to_address": address, "to_port": int(port), "masquerade": rule.masquerade}
        return Undo(action="firewall.forward", params=named | more)
    if rule.action == "limit":
        more = {"last_port": int(last or 0), "per_minute": rule.per_minute}
        return Undo(action="firewall.limit", params=named | more)
    if rule.action == "drop":
        return Undo(action="firewall.deny-source", params=named)
    if rule.ports:
        return Undo(action="firewall.open-port", params=named | {"last_port": int(last or 0)})
    return Undo(action="firewall.allow-source", params=named)


def _add(rule: OwnRule, view: FirewallView, facts: Facts) -> Planned:
    if any(one.id == rule.id and one.until == rule.until for one in _own(view)):
        yield Note(text="there is such a rule already: there is nothing to do")
        return
    by_ufw = view.manager == "ufw"
    if by_ufw and rule.action == "drop" and _published(view, rule):
        raise RefusedError(
            f"port {rule.ports}/{rule.protocol} is published by a container: its packets are"
            " forwarded before ufw's rules see them",
            hint="publish it on 127.0.0.1 only, or stop the container",
        )
    if by_ufw:
        if rule.action == "drop":
            _check_not_denied(rule, view, facts)
        # What is narrow or forbids must come before what is wide and allows.
        first = rule.action != "accept" or bool(rule.source)
        yield from _by_ufw([ufw.add(rule, first=first)], view, facts)
        return
    kept = [one for one in own_rules(view.rules) if one.id != rule.id]
    yield from _by_table([*kept, rule], view, facts, drops=_drops(view), opened=rule)


def _remove(rule: OwnRule, view: FirewallView, facts: Facts) -> Planned:
    # One of our table, where ufw was put in force later, is still in the table.
    if view.manager == "ufw" and rule not in own_rules(view.rules):
        if rule.action == "accept" and _drops(view):
            _check_let_in(view, facts, without=rule)
        yield from _by_ufw([ufw.remove(rule)], view, facts)
        return
    rest = [one for one in own_rules(view.rules) if one.id != rule.id]
    yield from _by_table(rest, view, facts, drops=_drops(view))


def _by_table(
    rules: Sequence[OwnRule],
    view: FirewallView,
    facts: Facts,
    *,
    drops: bool,
    opened: OwnRule | None = None,
) -> Planned:
    """Make our own table be these rules."""
    as_known = render(own_rules(view.rules, ended=True), view.settings, drops=_drops(view))
    if not same(as_known, view.own_table):
        raise RefusedError(
            "the table inet narthex holds what Narthex did not write",
            hint="see: nft list table inet narthex; what is yours belongs into a table of its own",
        )
    table = render(rules, view.settings, drops=drops)
    if opened is not None and opened.action in {"accept", "forward"}:
        yield from _opens(opened, view, table)
    yield from _cut(view, facts, table)
    kept = facts.files.read(FILE)
    yield from _guarded(script(table), view, facts)
    yield Confirm()
    yield WriteFile(path=FILE, content=script(table), before=kept)
    yield from _at_boot(facts)


def _opens(rule: OwnRule, view: FirewallView, table: str) -> Planned:
    """Refuse what opens nothing, as another rule would still drop it; tell what is not known."""
    sources = (str(ipaddress.ip_network(rule.source)[0]),) if rule.source else _ANYBODY
    port = int(rule.ports.partition("-")[0]) if rule.ports else 0
    for source in sources if port else ():
        verdict = view.judge(rule.protocol, port, source, own_table=table)
        if verdict.verdict == "unknown":
            yield Note(text=f"whether it lets {source} in is not certain: {verdict.why}")
        elif verdict.verdict == "drop" and not verdict.rule.startswith("this machine has no"):
            raise RefusedError(
                f"another rule would still drop it: {verdict.rule}",
                hint="an accept in one chain does not undo a drop in another: change that rule"
                " where it was made, or remove it",
            )


def _cut(view: FirewallView, facts: Facts, table: str) -> Planned:
    """Refuse what would cut those by whom the node is kept; tell who else would be."""
    protected = _protected_ports(facts)
    cut: dict[tuple[str, str, int, str], int] = {}
    for one in facts.sockets.connections():
        key = (one.protocol, one.peer_address, one.local_port, one.unit or one.comm)
        cut[key] = cut.get(key, 0) + 1
    for (protocol, peer, port, holder), count in list(cut.items()):
        if not _is_served(facts, protocol, port) or not _is_shut_out(
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


def _is_served(facts: Facts, protocol: str, port: int) -> bool:
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
        if not always and _is_served(facts, "tcp", one.local_port):
            yield one, protected[one.local_port]


def _check_not_denied(rule: OwnRule, view: FirewallView, facts: Facts) -> None:
    for one, what in _kept_connections(view, facts):
        if _covers(rule.source, rule.protocol, rule.ports, one):
            raise _cutting(one.peer_address, one.local_port, what)


def _check_let_in(view: FirewallView, facts: Facts, *, without: OwnRule | None = None) -> None:
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


def _guarded(text: str, view: FirewallView, facts: Facts) -> Generator[Step, None, None]:
    """Check, arm the guard, and make our table be the text."""
    yield RunProgram(argv=("nft", "--check", "--file", "-"), stdin=text)
    kept = facts.files.read(FILE)
    file = RemoveFile(path=FILE, before="") if kept is None else WriteFile(path=FILE, content=kept)
    before = RunProgram(argv=("nft", "--file", "-"), stdin=script(uncounted(view.own_table)))
    yield Guard(revert=(before, file), seconds=view.settings.rollback_seconds)
    yield RunProgram(argv=("nft", "--file", "-"), stdin=text)


def _at_boot(facts: Facts) -> Generator[Step | Note, None, None]:
    """Have our table loaded at boot, whether or not the distribution loads one."""
    why = facts.units.unavailable()
    if why:
        yield Note(text=f"{why}: the rules are kept in {FILE}, and nothing loads them at boot")
        return
    there = facts.files.read(UNIT_FILE)
    if there != UNIT_TEXT:
        yield WriteFile(path=UNIT_FILE, content=UNIT_TEXT, before=there)
        yield RunProgram(argv=("systemctl", "daemon-reload"))
    unit = facts.units.get(UNIT)
    if there is None or unit is None or unit.unit_file_state != "enabled":
        yield RunProgram(argv=("systemctl", "enable", "--quiet", "--", UNIT))


def _by_ufw(commands: Sequence[RunProgram], view: FirewallView, facts: Facts) -> Planned:
    """Have ufw do it, which keeps what it is told at once."""
    active = view.manager == "ufw"
    yield Guard(
        revert=tuple(ufw.revert(facts, active=active)), seconds=view.settings.rollback_seconds
    )
    prepends = any("prepend" in one.argv for one in commands)
    if not prepends:
        yield from ufw.always(view.settings, view.rules)
    yield from commands
    if prepends:
        yield from ufw.always_first(view.settings, view.rules)
    yield Confirm()


def _published(view: FirewallView, rule: OwnRule) -> bool:
    return any(
        (one.protocol, one.ports) == (rule.protocol, rule.ports) and one.owner == "docker"
        for one in view.forwards
    )


def _holders(facts: Facts, protocol: str, port: int) -> str:
    names = {
        one.unit or one.container or one.comm or "somebody"
        for one in facts.sockets.listeners()
        if (one.protocol, one.port) == (protocol, port)
    }
    return ", ".join(sorted(names))


def _listening(params: PortParams, facts: Facts) -> Generator[Note, None, None]:
    """Tell who would be reached."""
    if params.last_port:
        return
    found: list[ListenerFact] = [
        one
        for one in facts.sockets.listeners()
        if (one.protocol, one.port) == (params.protocol, params.port)
    ]
    if not found:
        yield Note(text=f"nothing listens on {params.port}/{params.protocol} now")
    elif all(ipaddress.ip_address(one.address.partition("%")[0]).is_loopback for one in found):
        yield Note(
            text=f"{_holders(facts, params.protocol, params.port)} listens on"
            f" {found[0].address} only: that the rule does not change"
        )
    else:
        yield Note(text=f"{_holders(facts, params.protocol, params.port)} listens there")
