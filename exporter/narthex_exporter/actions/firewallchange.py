"""Make our own table, or ufw's rules, be as they should: checked, guarded, confirmed, kept."""

import ipaddress
from collections.abc import Generator, Sequence
from typing import Final

from narthex_exporter.actions import firewallufw as ufw
from narthex_exporter.actions.firewallguard import check_let_in, check_not_denied, tell_cut
from narthex_exporter.actions.firewalltable import (
    FILE,
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
from narthex_exporter.actions.firewallufw import all_own
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.firewallfacts import FirewallView
from narthex_exporter.contract.spec import Planned
from narthex_exporter.contract.steps import (
    Confirm,
    Guard,
    Note,
    RemoveFile,
    RunProgram,
    Step,
    WriteFile,
)

# Somebody in no network that a node knows by itself: TEST-NET-2 and the documentation's prefix.
_ANYBODY: Final = ("198.51.100.77", "2001:db8::77")


def manager(view: FirewallView) -> str:
    """Name the backend by which changes go. Raises RefusedError where none does."""
    if view.manager == "firewalld":
        raise RefusedError(
            "firewalld is in force, which keeps neither owners nor comments of rules:"
            " Narthex shows its zones and does not change them",
            hint="use firewall-cmd on the node; a second firewall beside it would fight with it",
        )
    return view.manager


def drops(view: FirewallView) -> bool:
    """Tell whether what no rule decides is dropped, by whom changes go."""
    place = "ufw" if view.manager == "ufw" else "inet narthex guard"
    return any(
        one.place == place and one.direction == "input" and one.policy in {"drop", "reject"}
        for one in view.policies
    )


def add_rule(rule: OwnRule, view: FirewallView, facts: Facts) -> Planned:
    """Add a rule by the backend in force, unless there is such a one."""
    if any(one.id == rule.id and one.until == rule.until for one in all_own(view)):
        yield Note(text="there is such a rule already: there is nothing to do")
        return
    is_ufw = view.manager == "ufw"
    if is_ufw and rule.action == "drop" and _published(view, rule):
        raise RefusedError(
            f"port {rule.ports}/{rule.protocol} is published by a container: its packets are"
            " forwarded before ufw's rules see them",
            hint="publish it on 127.0.0.1 only, or stop the container",
        )
    if is_ufw:
        if rule.action == "drop":
            check_not_denied(rule, view, facts)
        # What is narrow or forbids must come before what is wide and allows.
        first = rule.action != "accept" or bool(rule.source)
        yield from by_ufw([ufw.add(rule, first=first)], view, facts)
        return
    kept = [one for one in own_rules(view.rules) if one.id != rule.id]
    yield from by_table([*kept, rule], view, facts, dropping=drops(view), opened=rule)


def remove_own(rule: OwnRule, view: FirewallView, facts: Facts) -> Planned:
    """Take a rule of ours back, wherever it stands."""
    # One of our table, where ufw was put in force later, is still in the table.
    if view.manager == "ufw" and rule not in own_rules(view.rules):
        if rule.action == "accept" and drops(view):
            check_let_in(view, facts, without=rule)
        yield from by_ufw([ufw.remove(rule)], view, facts)
        return
    rest = [one for one in own_rules(view.rules) if one.id != rule.id]
    yield from by_table(rest, view, facts, dropping=drops(view))


def by_table(
    rules: Sequence[OwnRule],
    view: FirewallView,
    facts: Facts,
    *,
    dropping: bool,
    opened: OwnRule | None = None,
) -> Planned:
    """Make our own table be these rules."""
    as_known = render(own_rules(view.rules, ended=True), view.settings, drops=drops(view))
    if not same(as_known, view.own_table):
        raise RefusedError(
            "the table inet narthex holds what Narthex did not write",
            hint="see: nft list table inet narthex; what is yours belongs into a table of its own",
        )
    table = render(rules, view.settings, drops=dropping)
    if opened is not None and opened.action in {"accept", "forward"}:
        yield from _opens(opened, view, table)
    yield from tell_cut(view, facts, table)
    kept = facts.files.read(FILE)
    yield from guarded(script(table), view, facts)
    yield Confirm()
    yield WriteFile(path=FILE, content=script(table), before=kept)
    yield from at_boot(facts)


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


def guarded(text: str, view: FirewallView, facts: Facts) -> Generator[Step, None, None]:
    """Check, arm the guard, and make our table be the text."""
    yield RunProgram(argv=("nft", "--check", "--file", "-"), stdin=text)
    kept = facts.files.read(FILE)
    file = RemoveFile(path=FILE, before="") if kept is None else WriteFile(path=FILE, content=kept)
    before = RunProgram(argv=("nft", "--file", "-"), stdin=script(uncounted(view.own_table)))
    yield Guard(revert=(before, file), seconds=view.settings.rollback_seconds)
    yield RunProgram(argv=("nft", "--file", "-"), stdin=text)


def at_boot(facts: Facts) -> Generator[Step | Note, None, None]:
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


def by_ufw(commands: Sequence[RunProgram], view: FirewallView, facts: Facts) -> Planned:
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
