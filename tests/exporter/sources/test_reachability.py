"""Who can reach a port: what the evaluator says is what real packets do."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
from tests.exporter.sources.namespaces import LAN, LAN6, WAN, Helper, Town, exists, town

from narthex_exporter.sources.nftparse import LIST

pytestmark = pytest.mark.skipif(not exists(), reason="needs root, unshare and nft")

PORTS = (22, 80, 443, 8000, 8080, 9090)
UDP = (53, 5353)
SOURCES = (*LAN, *LAN6, *WAN)
TRIES = [(s, "tcp", p) for s in SOURCES for p in PORTS] + [
    (s, "udp", p) for s in SOURCES for p in UDP
]
# Runs in the machine's namespace, as the actor would.
JUDGE = """\
import dataclasses, json, sys
from narthex_exporter.actor.runner import Runner
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.smallfiles import SmallFiles
run = Runner(start_ticks=lambda pid: None, dbus=None).read
rules = FirewallRules(run=run, files=SmallFiles())
for line in sys.stdin:
    asked, view = json.loads(line), rules.look()
    judged = [view.judge(protocol, port, source) for source, protocol, port in asked["tries"]]
    reach = [view.reach("tcp", "0.0.0.0", port) for port in asked["ports"]]
    print(json.dumps({
        "verdicts": [dataclasses.asdict(one) for one in judged],
        "reach": [dataclasses.asdict(one) for one in reach],
        "rules": [dataclasses.asdict(one) for one in view.rules],
    }), flush=True)
"""


@dataclass(frozen=True)
class Place(Town):
    judge: Helper


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    served = (*(f"t{port}" for port in PORTS), *(f"u{port}" for port in UDP))
    with town(served) as one, one.machine.helper(JUDGE) as judge:
        yield Place(**{field.name: getattr(one, field.name) for field in fields(one)}, judge=judge)


def reach(place: Place, port: int) -> dict[str, Any]:
    found: dict[str, Any] = place.judge.ask({"tries": [], "ports": [port]})["reach"][0]
    return found


def wrong(place: Place) -> list[str]:
    """Give the connections of which the evaluator says one thing and packets do another."""
    verdicts = place.judge.ask({"tries": TRIES, "ports": []})["verdicts"]
    reached = place.reached(TRIES)
    names = [f"{source} {protocol} {port}" for source, protocol, port in TRIES]
    return [
        f"{name}: judged {verdict}, reached {reached[name]}"
        for name, verdict in zip(names, verdicts, strict=True)
        if verdict["verdict"] != ("accept" if reached[name] else "drop")
    ]


def test_without_rules_everything_is_reached(place: Place) -> None:
    place.load("")
    assert wrong(place) == []


CONDITIONS = (
    "ip saddr 10.1.0.0/24", "ip saddr 10.1.0.77", "ip saddr != 10.1.0.0/24", "ip saddr @friends",
    "ip saddr { 198.51.100.0/24, 10.1.0.2 }", "ip6 saddr fd00::/8", 'iifname "eth0"',
    'iifname != "eth0"', 'iifname "wan*"', "tcp dport 22", "tcp dport { 80, 443 }",
    "tcp dport 8000-8100", "udp dport 53", "tcp dport != 22", "meta l4proto tcp",
    "meta l4proto { tcp, udp }", "meta nfproto ipv4", "ct state new", "ct state established",
    "ct state { new, related }", "ct state != invalid", "fib daddr type local", "th dport 53-90",
    "ip daddr 203.0.113.1", "ip protocol tcp", "tcp flags syn / fin,syn,rst,ack",
    "tcp sport 1024-65535", "ip saddr . tcp dport { 10.1.0.2 . 80, 203.0.113.2 . 8080 }",
    "meta pkttype host",
    "limit rate 1000/second burst 9999 packets",
    "limit rate over 1000/second burst 9999 packets", "counter",
    'log prefix "a b"', "ip saddr 10.1.0.5-10.1.0.99", "icmp type echo-request",
)  # fmt: skip
VERDICTS = (
    "accept", "accept", "drop", "drop", "reject", "return", "jump one", "goto two", "continue",
    "",
)  # fmt: skip


def one_rule(chance: random.Random, verdicts: tuple[str, ...]) -> str:
    conditions = chance.sample(CONDITIONS, chance.choice((0, 1, 1, 1, 2)))
    # A level that is for one family only cannot be joined with the other's.
    if len(set(" ".join(conditions).split()) & {"ip", "ip6", "icmp", "ipv4"}) > 1:
        conditions = conditions[:1]
    verdict = chance.choice(verdicts)
    if verdicts is VERDICTS and chance.random() < 0.15:
        return "tcp dport vmap { 22 : accept, 80-90 : drop, 8000-9000 : jump two }"
    return " ".join((*conditions, verdict)) or "counter"


def rules(chance: random.Random, count: int, verdicts: tuple[str, ...]) -> str:
    return "\n    ".join(one_rule(chance, verdicts) for _ in range(count))


def ruleset(seed: int) -> str:
    chance = random.Random(seed)  # noqa: S311 - the same cases each time
    simple = ("accept", "drop", "return", "reject")
    policy, other = chance.choice(("accept", "drop")), chance.choice(("accept", "accept", "drop"))
    return f"""
table inet filter {{
  set friends {{ type ipv4_addr; flags interval; elements = {{ 10.1.0.64/26, 203.0.113.2 }} }}
  chain two {{ {rules(chance, 2, simple)}
  }}
  chain one {{ {rules(chance, 2, (*simple, "jump two"))}
  }}
  chain input {{ type filter hook input priority 0; policy {policy};
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    {rules(chance, chance.randint(1, 5), VERDICTS)}
  }}
}}
table ip other {{
  chain early {{ type filter hook prerouting priority -200; policy accept;
    ct state established,related accept
    {"tcp dport 9090 ip saddr 10.1.0.0/24 drop" if seed % 3 == 0 else ""}
  }}
  chain input {{ type filter hook input priority 10; policy {other};
    ct state established,related accept
    tcp dport {{ 22, 80, 8000 }} accept
    {"udp dport 53 reject" if seed % 2 else "udp dport 53 accept"}
  }}
}}
"""


@pytest.mark.parametrize("seed", range(24))
def test_the_evaluator_agrees_with_real_packets(place: Place, seed: int) -> None:
    text = ruleset(seed)
    try:
        place.load(text)
    except AssertionError as error:
        pytest.fail(f"the case itself is wrong: {error} {text}")
    assert wrong(place) == [], place.machine.run(*LIST)


DOCKER = """
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -P FORWARD DROP
iptables -N DOCKER
iptables -N DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
"""  # noqa: E501
CLOSED = """
table inet closed { chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  ip saddr 10.1.0.0/24 tcp dport 22 accept
}
}
"""


def test_a_published_port_is_open_whatever_input_says(place: Place) -> None:
    place.load(CLOSED)
    place.machine.run("sh", "-ec", DOCKER)
    assert wrong(place) == []
    found = reach(place, 8080)
    assert (found["scope"], found["forwarded_to"]) == ("anywhere", "172.17.0.2:80")
    assert reach(place, 80)["scope"] == "local"
    listed = reach(place, 22)
    assert (listed["scope"], listed["networks"]) == ("networks", ["10.1.0.0/24"])
    assert "ip saddr 10.1.0.0/24 tcp dport 22 accept" in listed["rule"]
    place.machine.run("iptables", "-I", "DOCKER-USER", "-i", "wan0", "-j", "DROP")
    assert wrong(place) == []
    assert "10.1.0.0/24" in reach(place, 8080)["networks"]


def test_a_rule_that_cannot_be_judged_is_told(place: Place) -> None:
    place.load(
        "table inet odd { chain input { type filter hook input priority 0; policy accept;"
        " tcp dport 80 meta hour 0-3 drop; udp dport 53 meta hour 0-3 accept;\n}\n}"
    )
    found = reach(place, 80)
    assert found["scope"] == "unknown"
    assert "meta hour" in found["why"]
    assert reach(place, 22)["scope"] == "anywhere"


def test_a_machine_that_drops_all_is_reached_by_nobody(place: Place) -> None:
    place.load("table ip a { chain b { type filter hook input priority 0; policy drop;\n}\n}")
    assert reach(place, 80)["scope"] in {"local", "networks"}
    place.load("table inet a { chain b { type filter hook input priority 0; policy drop;\n}\n}")
    found = reach(place, 80)
    assert (found["scope"], found["rule"]) == ("local", "inet a b: policy drop")
