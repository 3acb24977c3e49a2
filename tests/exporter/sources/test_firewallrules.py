"""The packet filter in one model: rules of nftables, ufw and firewalld, and what is not known."""

import pytest
from tests.exporter.actions.conftest import PretendedFiles

from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.firewallmodel import (
    firewalld_policies,
    firewalld_rules,
    nft_rules,
    ufw_policies,
    ufw_rules,
)
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.nftparse import parse_ruleset
from narthex_exporter.sources.reachability import Layout

ZONES = """\
dmz
  target: default
  ports: 1/tcp

public (active)
  target: %%REJECT%%
  interfaces: eth0
  sources: 10.0.0.0/8
  services: ssh dhcpv6-client
  ports: 80/tcp 8000-8010/udp
  forward: no
  forward-ports: 
\tport=8080:proto=tcp:toport=80:toaddr=10.0.0.5
  rich rules: 
\trule family="ipv4" source address="10.0.0.7" port port="22" protocol="tcp" drop
\trule family="ipv4" port port="443" protocol="tcp" accept limit value="6/m"
"""  # noqa: W291 - as firewall-cmd prints it


def looked(*outcomes: Outcome, files: dict[str, str] | None = None) -> FirewallRules:
    answers = list(outcomes)

    def run(step: RunProgram) -> Outcome:
        return answers.pop(0) if step.argv[0] == "nft" else Outcome(code=127)

    return FirewallRules(run=run, files=PretendedFiles(files or {}), layout=Layout)


def test_zones_of_firewalld_that_are_in_use_are_told() -> None:
    found = [
        (one.action, one.protocol, one.ports, one.source, one.to, one.limit_per_minute)
        for one in firewalld_rules(ZONES)
    ]
    assert found == [
        ("accept", "tcp", "80", "", "", 0),
        ("accept", "udp", "8000-8010", "", "", 0),
        ("accept", "", "", "", "", 0),
        ("accept", "", "", "", "", 0),
        ("other", "", "", "10.0.0.0/8", "", 0),
        ("forward", "tcp", "8080", "", "10.0.0.5:80", 0),
        ("drop", "tcp", "22", "10.0.0.7", "", 0),
        ("limit", "tcp", "443", "", "", 6),
    ]
    assert [(one.place, one.policy) for one in firewalld_policies(ZONES)] == [
        ("zone public", "reject")
    ]


def test_rules_of_ufw_are_told_by_their_tuples() -> None:
    text = (
        "### tuple ### allow any 22 0.0.0.0/0 any 10.0.0.0/8 in_eth0 comment=61c3a9\n"
        "### tuple ### deny_log tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 in\n"
        "### tuple ### route:allow tcp 80 172.17.0.2 any 0.0.0.0/0 in\n"
        "### tuple ### reject udp 53 ::/0 any ::/0 DNS - out comment=zz\n"
        "### tuple ### too short\n-A ufw-user-input -j ACCEPT\n"
    )
    found = [
        (
            one.action,
            one.direction,
            one.protocol,
            one.ports,
            one.source,
            one.interface,
            one.comment,
        )
        for one in ufw_rules(text, version=4)
    ]
    assert found == [
        ("accept", "input", "", "22", "10.0.0.0/8", "eth0", "aé"),
        ("drop", "input", "tcp", "80, 443", "", "", ""),
        ("accept", "forward", "tcp", "80", "", "", ""),
        ("reject", "output", "udp", "53", "", "", ""),
    ]
    policies = ufw_policies('# x\nDEFAULT_INPUT_POLICY="DROP"\nIPV6=yes\n')
    assert [(one.direction, one.policy) for one in policies] == [("input", "drop")]


def test_what_the_model_has_no_word_for_is_shown_as_it_is() -> None:
    text = (
        "table ip6 x { # handle 1\n\tchain y { # handle 1\n"
        "\t\ttype filter hook forward priority 0; policy drop;\n"
        "\t\tip6 saddr != fe80::/10 exthdr rt exists queue to 3 # handle 7\n\t}\n}\n"
    )
    (one,) = nft_rules(parse_ruleset(text), now=0)
    assert (one.action, one.direction, one.source) == ("other", "forward", "not fe80::/10")
    assert one.raw == "ip6 saddr != fe80::/10 exthdr rt exists queue to 3"
    assert (one.id, one.owner) == ("ip6/x/7", "administrator")


@pytest.mark.parametrize(
    "text",
    ["", "}\n}\n", "table", "table ip x {", "table ip x {\n\tchain y {\n\t\t{ { { accept",
     "table ip x {\n\tchain y {\n\t\ttcp dport vmap {\n\t\tip saddr {\n\t\tmeter\n\t\tdnat\n\t\t.",
     "table ip x {\n\tset y {\n\t\telements = { 1.2.3.4 timeout", "\x00\n\ufffd table ip x {\n"],
)  # fmt: skip
def test_text_of_no_sense_ends_nothing(text: str) -> None:
    for one in nft_rules(parse_ruleset(text), now=0):
        assert one.backend == "nftables"


def test_a_ruleset_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(UnavailableError, match="Operation not permitted"):
        looked(Outcome(code=1, output="Operation not permitted\n")).look()
    with pytest.raises(UnavailableError, match="no program") as missing:
        looked(Outcome(code=127, output="there is no program nft on this node")).look()
    assert missing.value.hint == "install the package nftables"


def test_what_nft_does_not_show_makes_every_verdict_unknown() -> None:
    legacy = {"/proc/net/ip_tables_names": "filter\n"}
    view = looked(Outcome(code=0, output=""), files=legacy).look()
    assert "iptables-legacy" in view.reach("tcp", "10.0.0.1", 80).why
    gap = Outcome(code=0, output="table ip x {\n[... left out ...]\n}\n")
    view = looked(gap, Outcome(code=0, output="table ip x {\n}\n")).look()
    assert view.reach("tcp", "10.0.0.1", 80).scope == "unknown"
    assert view.blind == "the sets are too large to be read"
