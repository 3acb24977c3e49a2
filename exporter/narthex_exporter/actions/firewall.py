"""Act on the packet filter: each change is brought back unless the operator confirms it."""

import datetime as dt
import ipaddress
from collections.abc import Generator
from typing import Final

from pydantic import AwareDatetime

from narthex_exporter.actions import firewallufw as ufw
from narthex_exporter.actions.firewallchange import (
    add_rule,
    at_boot,
    by_table,
    by_ufw,
    drops,
    guarded,
    manager,
    remove_own,
)
from narthex_exporter.actions.firewallguard import check_let_in, holders, tell_cut
from narthex_exporter.actions.firewallparams import (
    BackendParams,
    DefaultPolicy,
    FirewallBackend,
    FirewallParams,
    ForwardParams,
    LimitParams,
    PolicyParams,
    PortParams,
    RemoveParams,
    RuleParams,
    SourceParams,
)
from narthex_exporter.actions.firewalltable import FILE, NONE, UNIT, OwnRule, own_rules, script
from narthex_exporter.actions.firewallufw import all_own
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, ListenerFact
from narthex_exporter.contract.firewallfacts import FirewallView
from narthex_exporter.contract.spec import Aftermath, Danger, Planned, action
from narthex_exporter.contract.steps import Confirm, Note, RunProgram, Undo

# Beyond the time that a policy may give for a confirmation.
_TIMEOUT_SECONDS: Final = 700


def as_it_is(params: FirewallParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: ARG001, FBT001
    """Tell how many rules of ours there are, and what is done without one."""
    view = facts.firewall.look()
    state: dict[str, object] = {"manager": view.manager, "rules": len(all_own(view))}
    state["default"] = "drop" if drops(view) else "accept"
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
    rule = _rule("accept", params, view)
    yield from _listening(params, facts)
    yield Undo(action="firewall.close-port", params=_named(params))
    yield from add_rule(rule, view, facts)


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
        for one in all_own(view)
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
    yield from remove_own(rules[0], view, facts)


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
    yield from add_rule(rule, view, facts)


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
    yield from add_rule(rule, view, facts)


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
    rule = _rule("limit", params, view)
    yield Undo(action="firewall.remove-rule", params={"rule": rule.id})
    yield from add_rule(rule, view, facts)


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
    if manager(view) != "nftables":
        raise RefusedError(
            f"{view.manager} is in force, and forwards are not among the rules that we give to it",
            hint=f"use {view.manager}'s own tools for this",
        )
    held = holders(facts, params.protocol, params.port)
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
    yield from add_rule(rule, view, facts)


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
    rule = next((one for one in all_own(view) if one.id == params.rule), None)
    if rule is None:
        raise RefusedError(
            f"there is no rule {params.rule} of Narthex's",
            hint="it may have ended or been removed: refresh the list",
        )
    yield _undo_of(rule)
    yield from remove_own(rule, view, facts)


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
    wanted = params.policy is DefaultPolicy.DROP
    before = DefaultPolicy.DROP if drops(view) else DefaultPolicy.ACCEPT
    if before is params.policy:
        yield Note(text=f"the default policy is {params.policy} already: there is nothing to do")
        return
    yield Undo(action="firewall.set-default-policy", params={"policy": str(before)})
    if manager(view) == "ufw":
        if wanted:
            check_let_in(view, facts)
        word = "deny" if wanted else "allow"
        yield from by_ufw([ufw.ufw("default", word, "incoming")], view, facts)
        return
    yield from by_table(own_rules(view.rules), view, facts, dropping=wanted)


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
    if params.backend is FirewallBackend.UFW:
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
            check_let_in(view, facts)
        yield from by_ufw([ufw.ufw("enable")], view, facts)
        return
    if view.own_table:
        yield Note(text="Narthex's table is in force already: there is nothing to do")
        return
    if manager(view) != "nftables":
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
    yield from tell_cut(view, facts, table)
    yield from guarded(script(table), view, facts)
    yield Confirm()
    yield from at_boot(facts)


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
    if params.backend is FirewallBackend.UFW:
        if not any(one.active for one in view.backends if one.name == "ufw"):
            raise RefusedError("ufw is not in force", hint="there is nothing to turn off")
        yield from by_ufw([ufw.ufw("disable")], view, facts)
        return
    if not view.own_table:
        raise RefusedError("Narthex's table is not in force", hint="there is nothing to turn off")
    yield from guarded(NONE, view, facts)
    yield Confirm()
    unit = None if facts.units.unavailable() else facts.units.get(UNIT)
    if unit is not None and unit.unit_file_state == "enabled":
        yield RunProgram(argv=("systemctl", "disable", "--quiet", "--", UNIT))


def _view(facts: Facts) -> FirewallView:
    view = facts.firewall.look()
    manager(view)
    return view


def _until(until: AwareDatetime | None, view: FirewallView) -> int:
    if until is None:
        return 0
    seconds = int(until.timestamp())
    if seconds <= view.now_seconds:
        raise RefusedError("its end is past", hint="choose a later time, with its time zone")
    if view.manager == "ufw":
        raise RefusedError("ufw knows no rules that end by themselves", hint="leave the end out")
    return seconds


def _rule(verdict: str, params: RuleParams | LimitParams, view: FirewallView) -> OwnRule:
    rate = params.per_minute if isinstance(params, LimitParams) else 0
    return OwnRule(
        action=verdict,
        protocol=params.protocol,
        ports=params.ports,
        source=params.source,
        # ufw has one rate, as it is told in the model.
        per_minute=12 if rate and view.manager == "ufw" else rate,
        until=_until(params.until, view),
        comment=params.comment,
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
            text=f"{holders(facts, params.protocol, params.port)} listens on"
            f" {found[0].address} only: that the rule does not change"
        )
    else:
        yield Note(text=f"{holders(facts, params.protocol, params.port)} listens there")
