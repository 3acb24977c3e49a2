"""Packet filters: real rules in a network namespace that is ours alone, and texts."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import firewall
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.firewall import (
    Firewall,
    Firewalls,
    Policy,
    parse_legacy,
    parse_ruleset,
    parse_ufw_enabled,
    parse_ufw_rules,
)
from narthex_exporter.sources.place import Paths, Sources
from narthex_exporter.sources.procfs import Procfs

RULES = """
table inet filter {
  set bad { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    tcp dport { 22, 80 } accept comment "ssh {'rule': { and more"
    ip saddr @bad drop
  }
  chain forward { type filter hook forward priority 0; policy accept; }
  chain mine { counter; }
}
table ip nat {
  chain post { type nat hook postrouting priority 100; policy accept; masquerade; }
}
"""
LOOK = """
import dataclasses, json
from pathlib import Path
from narthex_exporter.sources.firewall import Firewalls
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
found = Firewalls(Paths(root=Path("/nonexistent"))).look(Procfs())
print(json.dumps([dataclasses.astuple(each) for each in found]))
"""
needs_nft = pytest.mark.skipif(
    shutil.which("nft") is None, reason="needs the package nftables, and root"
)
needs_legacy = pytest.mark.skipif(
    shutil.which("xtables-legacy-multi") is None, reason="needs the package iptables, and root"
)


class Pretended:
    def __init__(self, found: list[Firewall]) -> None:
        self.found = found

    def look(self, proc: Procfs) -> list[Firewall]:  # noqa: ARG002
        return self.found


def look_within(preparation: str, rules: str = "") -> dict[str, Firewall]:
    """Look in a new network namespace, after a command of one's own there."""
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-ec",
            f'{preparation}\nexec "$0" -Ic "$1"',
            sys.executable,
            LOOK,
        ],
        input=rules,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for backend, enabled, count, policies in json.loads(done.stdout):
        found[backend] = Firewall(
            backend=backend,
            enabled=enabled,
            rules=count,
            policies=tuple(Policy(*each) for each in policies),
        )
    return found


@needs_nft
def test_rules_and_policies_of_nftables_are_told() -> None:
    found = look_within("nft -f -", RULES)["nftables"]
    assert (found.enabled, found.rules) == (True, 5)
    assert {each[1:] for each in found.policies} == {
        ("inet", "filter", "input", "input", "drop"),
        ("inet", "filter", "forward", "forward", "accept"),
        ("ip", "nat", "post", "postrouting", "accept"),
    }


@needs_nft
def test_no_rules_are_no_firewall() -> None:
    found = look_within(":")["nftables"]
    assert (found.enabled, found.rules, found.policies) == (False, 0, ())


@needs_nft
def test_a_policy_to_drop_is_a_firewall_without_rules() -> None:
    text = "table ip f { chain i { type filter hook input priority 0; policy drop; }; }"
    found = look_within("nft -f -", text)["nftables"]
    assert (found.enabled, found.rules) == (True, 0)


@needs_nft
def test_a_set_of_many_addresses_costs_nothing() -> None:
    elements = ", ".join(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(50_000))
    text = f"table ip f {{ set s {{ type ipv4_addr; elements = {{ {elements} }}; }}; }}"
    assert look_within("nft -f -", text)["nftables"].rules == 0


@pytest.mark.skipif(
    shutil.which("iptables-nft") is None or shutil.which("nft") is None,
    reason="needs the packages iptables and nftables, and root",
)
def test_iptables_over_nftables_is_nftables() -> None:
    found = look_within("iptables-nft -P FORWARD DROP\niptables-nft -A INPUT -p tcp -j ACCEPT")
    assert found["nftables"].rules == 1
    assert ("ip", "filter", "FORWARD", "forward", "drop") in {
        each[1:] for each in found["nftables"].policies
    }
    assert not found["iptables"].enabled


@needs_legacy
def test_iptables_own_tables_are_told_apart_from_nftables() -> None:
    preparation = (
        "xtables-legacy-multi iptables -P FORWARD DROP\n"
        "xtables-legacy-multi iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n"
        "xtables-legacy-multi ip6tables -A INPUT -j DROP"
    )
    found = look_within(preparation)
    assert (found["iptables"].enabled, found["iptables"].rules) == (True, 2)
    policies = {each.policy for each in found["iptables"].policies if each.chain == "FORWARD"}
    assert policies == {"drop", "accept"}
    assert found.get("nftables", found["iptables"]).rules in {0, 2}


@needs_legacy
def test_looking_does_not_load_iptables_own_tables() -> None:
    names = "cat /proc/net/ip_tables_names >&2"
    assert look_within(names)["iptables"] == Firewall(backend="iptables", enabled=False, rules=0)


def test_the_collector_tells_what_the_source_found(measure: Callable[..., Any]) -> None:
    policy = Policy("nftables", "inet", "filter", 'in"put\n', "input", "drop")

    known = Pretended(
        [
            Firewall(backend="nftables", enabled=True, rules=12, policies=(policy,)),
            Firewall(backend="firewalld", enabled=False),
        ]
    )
    labels = 'backend="nftables",family="inet",table="filter",chain="in\\"put\\n",hook="input"'
    assert measure(firewall.collect, sources=Sources({Firewalls: known})) == {
        'narthex_firewall_enabled{backend="nftables"}': 1,
        'narthex_firewall_rules{backend="nftables"}': 12,
        f'narthex_firewall_default_policy{{{labels},policy="drop"}}': 1,
        'narthex_firewall_enabled{backend="firewalld"}': 0,
    }


def test_chains_are_told_up_to_a_limit(measure: Callable[..., Any]) -> None:
    policies = tuple(Policy("nftables", "ip", "t", f"c{n}", "input", "drop") for n in range(500))
    known = Pretended([Firewall(backend="nftables", enabled=True, rules=1, policies=policies)])
    found = measure(firewall.collect, sources=Sources({Firewalls: known}))
    assert sum("policy" in key for key in found) == 100


def test_a_machine_without_any_has_nothing_to_tell(make_node: Callable[..., Node]) -> None:
    with pytest.raises(NoData):
        list(firewall.collect.collect(make_node(sources=Sources({Firewalls: Pretended([])}))))


@pytest.mark.parametrize(
    ("settings", "enabled"),
    [
        (b"# ENABLED=yes\nENABLED=no\n", False),
        (b"ENABLED=no\nENABLED=yes\nLOGLEVEL=low\n", True),
        (b'ENABLED="yes"\n', True),
        (b"\xff\xfe\n=\nENABLED\n", False),
        (b"", False),
    ],
)
def test_ufw_says_itself_whether_it_is_in_force(settings: bytes, *, enabled: bool) -> None:
    assert parse_ufw_enabled(settings) is enabled


def test_ufws_rules_are_counted_once_each() -> None:
    text = (
        b"*filter\n:ufw-user-input - [0:0]\n### RULES ###\n\n"
        b"### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
        b"-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n\n"
        b"### tuple ### limit any 53 0.0.0.0/0 any 0.0.0.0/0 in comment=646e73\n"
        b"-A ufw-user-input -p tcp --dport 53 -j ACCEPT\n"
        b"-A ufw-user-input -p udp --dport 53 -j ACCEPT\n### END RULES ###\nCOMMIT\n"
    )
    assert parse_ufw_rules(text) == 2


def test_ufw_is_found_in_the_machines_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc/ufw"
    folder.mkdir(parents=True)
    (folder / "ufw.conf").write_text("ENABLED=yes\n")
    (folder / "user.rules").write_text("### tuple ### deny any any any any any in\n")
    assert Firewalls(Paths(root=tmp_path))._ufw() == Firewall(backend="ufw", enabled=True, rules=1)
    assert Firewalls(Paths(root=tmp_path / "else"))._ufw() is None


def test_ten_thousand_rules_are_counted_without_a_tree_of_objects() -> None:
    rule = {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"drop": None}]}}
    chain = {
        "chain": {"family": "ip", "table": "t", "name": "c", "hook": "input", "policy": "drop"}
    }
    entries: list[dict[str, Any]] = [{"metainfo": {}}, chain, *[rule] * 10_000]
    output = json.dumps({"nftables": entries}).encode()
    began = time.process_time()
    rules, policies = parse_ruleset(output)
    assert (rules, policies) == (10_000, [Policy("nftables", "ip", "t", "c", "input", "drop")])
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "output", [b"", b"{}", b"nft: error", b'{"nftables": [{"chain": {"family"', b"\xff\xff"]
)
def test_what_nft_does_not_print_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        parse_ruleset(output)


def test_iptables_counters_and_own_chains_do_not_mislead() -> None:
    text = (
        b"# Generated\n*filter\n:INPUT DROP [3:180]\n:mine - [0:0]\n:\n"
        b'[0:0] -A INPUT -j mine\n-A mine -m comment --comment "\xff:X DROP" -j DROP\nCOMMIT\n'
    )
    rules, policies = parse_legacy("ip", text)
    assert rules == 2
    assert policies == [Policy("iptables", "ip", "filter", "INPUT", "input", "drop")]


@needs_nft
def test_without_root_it_is_said_why() -> None:
    done = subprocess.run(
        ["setpriv", "--inh-caps=-all", "--bounding-set=-all", sys.executable, "-Ic", LOOK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert UnavailableError.__name__ in done.stderr
    assert "nft: " in done.stderr
    assert "ermitted" in done.stderr
