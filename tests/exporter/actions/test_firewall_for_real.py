"""What the plans of firewall actions write is what a real nft loads, and what packets meet."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.exporter.actions.conftest import PretendedFacts, PretendedFiles, PretendedUnits
from tests.exporter.sources.namespaces import LAN, WAN, Town, exists, town

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.plans import Plan, make_plan
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.firewallfacts import FirewallSettings
from narthex_exporter.contract.steps import Guard, Outcome, RunProgram, Step, for_run
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.nftparse import LIST
from narthex_exporter.sources.reachability import Layout

pytestmark = pytest.mark.skipif(not exists(), reason="needs root, unshare and nft")

RUN_ID = "019ab0c4-5f00-7000-8000-000000000001"
PORTS = (22, 80, 443, 8080)
ADDRESSES = (("eth0", "10.1.0.1"), ("wan0", "203.0.113.1"), ("docker0", "172.17.0.1"))
ROUTES = (
    ("10.1.0.0/24", "eth0"), ("203.0.113.0/24", "wan0"), ("172.17.0.0/16", "docker0"),
    ("0.0.0.0/0", "wan0"),
)  # fmt: skip
LAYOUT = Layout(
    addresses=tuple((name, ipaddress.ip_address(one)) for name, one in ADDRESSES),
    routes=tuple((ipaddress.ip_network(one), name) for one, name in ROUTES),
)


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town(tuple(f"t{port}" for port in PORTS)) as one:
        yield one


@pytest.fixture
def facts(place: Town) -> PretendedFacts:
    """Facts with the real packet filter of the town's machine."""
    place.load("")

    def run(step: RunProgram) -> Outcome:
        if step.argv[0] != "nft":
            return Outcome(code=127)
        return Outcome(code=0, output=place.machine.run(*step.argv))

    files = PretendedFiles({"/proc/sys/net/ipv4/ip_forward": "1\n"})
    settings = FirewallSettings(always_allow=((f"{LAN[0]}/32", 22),))
    return PretendedFacts(
        files=files,
        units=PretendedUnits(why="systemd is not running"),
        firewall=FirewallRules(
            run=run, files=files, settings=lambda: settings, layout=lambda: LAYOUT
        ),
    )


def planned(facts: PretendedFacts, name: str, /, **params: Any) -> Plan:
    action = CATALOGUE[name]
    return make_plan(action, action.params.model_validate(params), facts)


def load(place: Town, steps: Any) -> None:
    for step in steps:
        if isinstance(step, RunProgram):
            ready: Step = for_run(step, RUN_ID)
            assert isinstance(ready, RunProgram)
            place.machine.run(*ready.argv, stdin=ready.stdin)


def act(place: Town, facts: PretendedFacts, name: str, /, **params: Any) -> Plan:
    plan = planned(facts, name, **params)
    load(place, plan.steps)
    return plan


def reached(place: Town, port: int) -> set[str]:
    tries = [(source, "tcp", port) for source in (*LAN, *WAN)]
    return {name.split()[0] for name, there in place.reached(tries).items() if there}


def ruleset(place: Town) -> str:
    return place.machine.run(*LIST)


def test_the_narrower_source_decides_and_who_is_always_let_in_is(
    place: Town, facts: PretendedFacts
) -> None:
    act(place, facts, "firewall.set-default-policy", policy="drop")
    assert reached(place, 80) == set()
    assert reached(place, 22) == {LAN[0]}
    act(place, facts, "firewall.open-port", port=80)
    assert reached(place, 80) == {*LAN, *WAN}
    act(place, facts, "firewall.deny-source", source="10.1.0.0/24", port=80)
    assert reached(place, 80) == set(WAN)
    act(place, facts, "firewall.allow-source", source=f"{LAN[1]}/32")
    assert reached(place, 80) == {LAN[1], *WAN}
    view = facts.firewall.look()
    reach = view.reach("tcp", "0.0.0.0", 80)  # noqa: S104 - what a listener says
    assert (reach.scope, "10.1.0.77/32" in reach.excepted) == ("anywhere", False)
    assert [one.run for one in view.rules if one.owner == "narthex"] == [RUN_ID] * 3
    act(place, facts, "firewall.close-port", port=80)
    assert reached(place, 80) == {LAN[1]}


def test_a_published_port_is_closed_like_any_other(place: Town, facts: PretendedFacts) -> None:
    dnat = "tcp dport 8080 dnat to 172.17.0.2:80"
    place.load(
        "table ip nat {\n chain PREROUTING { type nat hook prerouting priority -100;\n"
        f" fib daddr type local {dnat}\n }}\n}}\n"
    )
    assert reached(place, 8080) == {*LAN, *WAN}
    act(place, facts, "firewall.deny-source", port=8080, source="")
    assert reached(place, 8080) == set()


def test_a_forward_sends_connections_on(place: Town, facts: PretendedFacts) -> None:
    act(place, facts, "firewall.set-default-policy", policy="drop")
    params = {"port": 9999, "to_address": "172.17.0.2", "to_port": 80}
    plan = act(place, facts, "firewall.forward", **params)
    assert reached(place, 9999) == {*LAN, *WAN}
    assert plan.undo is not None
    act(place, facts, plan.undo.action, **plan.undo.params)
    assert reached(place, 9999) == set()


def test_a_limit_lets_a_few_in_and_counts_each_source(place: Town, facts: PretendedFacts) -> None:
    act(place, facts, "firewall.limit", port=443, per_minute=2)
    found = [reached(place, 443) for _ in range(4)]
    assert found[0] == found[1] == {*LAN, *WAN}
    assert found[3] == set()
    # What was counted is no change by somebody else.
    act(place, facts, "firewall.open-port", port=80)


def test_a_rule_ends_by_itself(place: Town, facts: PretendedFacts) -> None:
    act(place, facts, "firewall.set-default-policy", policy="drop")
    act(place, facts, "firewall.open-port", port=80, until="2100-01-01T00:00:00Z")
    assert reached(place, 80) == {*LAN, *WAN}
    (rule,) = [one for one in facts.firewall.look().rules if one.owner == "narthex"]
    assert rule.expires_at_seconds == 4_102_444_800
    # The kernel asks its clock at each packet: an end that is past opens nothing.
    text = place.machine.run("nft", "list", "ruleset")
    place.load(
        re.sub(r'time < "[^"]*"', "time < 1577836800", text.replace("4102444800", "1577836800"))
    )
    assert reached(place, 80) == set()
    assert [one.is_expired for one in facts.firewall.look().rules if one.owner == "narthex"] == [
        True
    ]
    act(place, facts, "firewall.open-port", port=443)
    assert "dport 80" not in ruleset(place)


def test_81_a_batch_that_fails_changes_nothing(place: Town, facts: PretendedFacts) -> None:
    act(place, facts, "firewall.open-port", port=80)
    before = ruleset(place)
    for line in (1, 25, 50):
        rules = [f"add rule inet narthex guard tcp dport {n} accept" for n in range(1, 51)]
        rules[line - 1] = "add rule inet narthex guard jump nowhere"
        text = "delete table inet narthex\nadd table inet narthex\n"
        text += "add chain inet narthex guard\n" + "\n".join(rules) + "\n"
        for words in (("--check",), ()):
            with pytest.raises(AssertionError):
                place.machine.run("nft", *words, "--file", "-", stdin=text)
            assert ruleset(place) == before


def test_a_revert_restores_our_table_and_leaves_the_others_as_they_are_by_then(
    place: Town, facts: PretendedFacts
) -> None:
    act(place, facts, "firewall.open-port", port=80)
    before = place.machine.run("nft", "list", "table", "inet", "narthex")
    plan = act(place, facts, "firewall.deny-source", source="10.1.0.0/24")
    place.machine.run("nft", "add", "table", "ip", "made-meanwhile")
    (guard,) = (step for step in plan.steps if isinstance(step, Guard))
    load(place, guard.revert)
    assert place.machine.run("nft", "list", "table", "inet", "narthex") == before
    assert "made-meanwhile" in ruleset(place)


def test_what_another_chain_would_still_drop_is_not_opened(
    place: Town, facts: PretendedFacts
) -> None:
    place.load(
        "table inet a {\n chain b { type filter hook input priority 0; policy drop;\n"
        " ct state established,related accept\n }\n}\n"
    )
    with pytest.raises(RefusedError, match="inet a b: policy drop"):
        planned(facts, "firewall.open-port", port=80)
