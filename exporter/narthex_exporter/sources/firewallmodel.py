"""Tell rules of nftables, ufw and firewalld in one model."""

import re
from collections.abc import Iterator
from typing import Any, Final

from narthex_exporter.contract.firewallfacts import FirewallPolicyFact, FirewallRuleFact
from narthex_exporter.sources.nftparse import (
    OWN_COMMENT,
    ChainKey,
    Limit,
    Match,
    Rule,
    Ruleset,
    Verdict,
    VerdictMap,
)
from narthex_exporter.sources.text import clean

OWN_TABLE: Final = ("inet", "narthex")
DEFAULT_COMMENT: Final = "narthex default"
_TEXT: Final = 2000
_PER: Final = {"second": 60.0, "minute": 1.0, "hour": 1 / 60, "day": 1 / 1440}
_DIRECTIONS: Final = {
    "prerouting": "input", "input": "input", "ingress": "input", "forward": "forward",
    "output": "output", "postrouting": "output", "egress": "output",
}  # fmt: skip
# See /etc/protocols.
_PROTOCOLS: Final = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6", "ipv6-icmp": "icmpv6"}
_UFW_TUPLE: Final = "### tuple ### "
_RICH: Final = re.compile(r'(\w[\w-]*)="([^"]*)"')


def nft_rules(ruleset: Ruleset, *, now: float) -> Iterator[FirewallRuleFact]:
    """Tell the rules of nftables, ours first; those that ufw and firewalld wrote are left out."""
    yield from _own_rules(ruleset, now)
    hooks = _hooks(ruleset)
    for chain in ruleset.chains.values():
        if chain.key[:2] == OWN_TABLE or owner_of(chain.key) in {"ufw", "firewalld"}:
            continue
        for rule in chain.rules:
            # A jump to what ufw or firewalld wrote is theirs as well.
            if not any(
                isinstance(part, Verdict) and part.to.startswith(("ufw-", "ufw6-"))
                for part in rule.parts
            ):
                yield _described(rule, hooks.get(chain.key, "input"))


def nft_policies(ruleset: Ruleset) -> Iterator[FirewallPolicyFact]:
    """Tell the policies of chains that filter."""
    for chain in ruleset.chains.values():
        direction = {"input": "input", "forward": "forward", "output": "output"}.get(chain.hook)
        if direction is not None and chain.kind == "filter":
            yield FirewallPolicyFact(
                backend="nftables",
                place=" ".join(chain.key),
                direction=direction,
                policy=chain.policy,
            )
    guard = ruleset.chains.get((*OWN_TABLE, "guard"))
    if guard is not None:
        drops = any(rule.comment == DEFAULT_COMMENT for rule in guard.rules)
        yield FirewallPolicyFact(
            backend="nftables",
            place=" ".join(guard.key),
            direction="input",
            policy="drop" if drops else "accept",
        )


def owner_of(key: ChainKey) -> str:
    """Tell who wrote a chain, by the names that each gives its own."""
    family, table, name = key
    if (family, table) == OWN_TABLE:
        return "narthex"
    if table == "firewalld":
        return "firewalld"
    if name.startswith(("ufw-", "ufw6-")):
        return "ufw"
    return "docker" if name.startswith("DOCKER") or "docker" in table else "administrator"


def _own_rules(ruleset: Ruleset, now: float) -> Iterator[FirewallRuleFact]:
    """Tell our own rules, each of which may be several of nftables'."""
    found: dict[str, list[Rule]] = {}
    for key, chain in ruleset.chains.items():
        if key[:2] == OWN_TABLE:
            for rule in chain.rules:
                own = OWN_COMMENT.fullmatch(rule.comment)
                if own is not None:
                    found.setdefault(own[1], []).append(rule)
    for number, rules in found.items():
        own = OWN_COMMENT.fullmatch(rules[0].comment)
        told = [_described(rule, "input") for rule in rules]
        main = next((one for one in told if one.action == "forward"), told[0])
        yield FirewallRuleFact(
            backend="nftables",
            id=number,
            direction="input",
            action=main.action,
            protocol=main.protocol,
            ports=main.ports,
            source=main.source,
            to=main.to,
            masquerade=any(rule.text.endswith("masquerade") for rule in rules),
            limit_per_minute=main.limit_per_minute,
            owner="narthex",
            comment=(own[4] or "") if own else "",
            expires_at_seconds=(until := int(own[3]) if own else 0),
            is_expired=0 < until <= now,
            run=own[2].strip("-") if own else "",
            place="inet narthex",
            raw="\n".join(rule.text for rule in rules)[:_TEXT],
        )


def _hooks(ruleset: Ruleset) -> dict[ChainKey, str]:
    """Find which way the packets go that each chain sees."""
    found = {key: chain.hook for key, chain in ruleset.chains.items() if chain.hook}
    waiting = list(found)
    while waiting:
        key = waiting.pop()
        for rule in ruleset.chains[key].rules:
            for name in _targets(rule, ruleset):
                target = (*key[:2], name)
                if target in ruleset.chains and target not in found:
                    found[target] = found[key]
                    waiting.append(target)
    return {key: _DIRECTIONS.get(hook, "input") for key, hook in found.items()}


def _targets(rule: Rule, ruleset: Ruleset) -> Iterator[str]:
    for part in rule.parts:
        if isinstance(part, Verdict) and part.kind in {"jump", "goto"}:
            yield part.to
        elif isinstance(part, VerdictMap):
            elements = part.elements or ruleset.maps.get((*rule.chain[:2], part.name), ())
            yield from (one.to for _, one in elements if one.kind in {"jump", "goto"})


def _described(rule: Rule, direction: str) -> FirewallRuleFact:
    words: dict[str, Any] = {}
    limit = 0
    action, to = "other", ""
    for part in rule.parts:
        if isinstance(part, Match):
            words |= dict(_words(part))
        elif isinstance(part, Limit) and part.over:
            limit = _per_minute(part.text)
        elif isinstance(part, Verdict):
            action, to = _action(part)
    owner = owner_of(rule.chain)
    if owner == "administrator" and ("docker0" in rule.text or '"br-' in rule.text):
        owner = "docker"
    return FirewallRuleFact(
        backend="nftables",
        id="/".join((*rule.chain[:2], str(rule.handle))),
        direction=direction,
        action="limit" if limit and action in {"drop", "reject"} else action,
        limit_per_minute=limit,
        to=to,
        owner=owner,
        comment=clean(rule.comment, limit=200),
        place=rule.place,
        raw=clean(rule.text, limit=_TEXT),
        **words,
    )


def _words(match: Match) -> Iterator[tuple[str, str]]:
    """Give what a condition says in the words of the model."""
    if len(match.keys) != 1:
        return
    key = match.keys[0]
    no = "not " if match.operator == "!=" else ""
    text = no + ", ".join(value.strip('"') for value in match.values)
    if key in {"tcp dport", "udp dport", "th dport"}:
        yield "ports", text
        if key != "th dport":
            yield "protocol", key[:3]
    elif key in {"meta l4proto", "ip protocol"}:
        yield "protocol", ", ".join(_PROTOCOLS.get(word, word) for word in text.split(", "))
    elif key in {"ip saddr", "ip6 saddr"}:
        yield "source", text
    elif key in {"ip daddr", "ip6 daddr"}:
        yield "destination", text
    elif key in {"iif", "iifname"}:
        yield "interface", text


def _action(verdict: Verdict) -> tuple[str, str]:
    if verdict.kind in {"dnat", "redirect"}:
        return "forward", verdict.to
    return (verdict.kind if verdict.kind in {"accept", "drop", "reject"} else "other"), ""


def _per_minute(text: str) -> int:
    count, _, unit = text.partition("/")
    return max(1, round(int(count) * _PER.get(unit, 1.0))) if count.isdecimal() else 1


def ufw_rules(text: str, *, version: int) -> Iterator[FirewallRuleFact]:
    """Tell the rules in ufw's ``user.rules`` (IPv4) or ``user6.rules``, each after its tuple.

    A tuple is action, protocol, port and destination, source's port and source, then perhaps two
    names of applications, and the direction; a comment is in hexadecimal.
    """
    for number, line in enumerate(text.splitlines()):
        if not line.startswith(_UFW_TUPLE):
            continue
        words = line.removeprefix(_UFW_TUPLE).split()
        comment = ""
        if words and words[-1].startswith("comment="):
            comment = _from_hex(words.pop().removeprefix("comment="))
        if len(words) < 7:  # noqa: PLR2004 - the words above
            continue
        action = words[0].removeprefix("route:").partition("_")[0]
        way, _, interface = words[-1].partition("_")
        routed = words[0].startswith("route:")
        yield FirewallRuleFact(
            backend="ufw",
            id=f"{version}/{number}",
            direction="forward" if routed else "output" if way == "out" else "input",
            action={"allow": "accept", "deny": "drop"}.get(action, action),
            protocol="" if words[1] == "any" else words[1],
            ports="" if words[2] == "any" else words[2].replace(":", "-").replace(",", ", "),
            source=_ufw_source(words[5]),
            destination=_ufw_source(words[3]),
            interface=interface,
            # What ufw's limit means: six connections in thirty seconds; see ufw(8).
            limit_per_minute=12 if action == "limit" else 0,
            owner="ufw",
            comment=comment,
            place=f"IPv{version}",
            raw=clean(line.removeprefix(_UFW_TUPLE), limit=_TEXT),
        )


def _ufw_source(word: str) -> str:
    return "" if word in {"0.0.0.0/0", "::/0", "any"} else word


def _from_hex(text: str) -> str:
    try:
        return clean(bytes.fromhex(text), limit=200)
    except ValueError:
        return ""


def ufw_policies(text: str) -> Iterator[FirewallPolicyFact]:
    """Tell ufw's policies from /etc/default/ufw."""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        direction = {
            "DEFAULT_INPUT_POLICY": "input",
            "DEFAULT_OUTPUT_POLICY": "output",
            "DEFAULT_FORWARD_POLICY": "forward",
        }.get(key.strip())
        if direction:
            yield FirewallPolicyFact(
                backend="ufw",
                place="ufw",
                direction=direction,
                policy=value.strip().strip("\"'").lower(),
            )


def firewalld_rules(text: str) -> Iterator[FirewallRuleFact]:
    """Tell the zones that ``firewall-cmd --list-all-zones`` prints, those in use."""
    for zone, fields in _zones(text):
        for word in " ".join(fields.get("ports", [])).split():
            ports, _, protocol = word.partition("/")
            yield _of_zone(zone, f"port {word}", "accept", ports=ports, protocol=protocol)
        for word in " ".join(fields.get("services", [])).split():
            yield _of_zone(zone, f"service {word}", "accept")
        for word in " ".join(fields.get("sources", [])).split():
            yield _of_zone(zone, f"source {word}", "other", source=word)
        for line in fields.get("forward-ports", []):
            words = dict(part.partition("=")[::2] for part in line.strip().split(":"))
            if words.get("port"):
                to = f"{words.get('toaddr', '')}:{words.get('toport', '')}"
                yield _of_zone(
                    zone, line.strip(), "forward",
                    ports=words["port"], protocol=words.get("proto", ""), to=to,
                )  # fmt: skip
        for line in fields.get("rich rules", []):
            if line.strip().startswith("rule"):
                yield _rich(zone, line.strip())


def firewalld_policies(text: str) -> Iterator[FirewallPolicyFact]:
    """Tell what each zone in use does with what no rule of it decided."""
    for zone, fields in _zones(text):
        target = " ".join(fields.get("target", [])).strip()
        policy = {"accept": "accept", "drop": "drop"}.get(target.lower(), "reject")
        yield FirewallPolicyFact(
            backend="firewalld", place=f"zone {zone}", direction="input", policy=policy
        )


def _zones(text: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    for block in re.split(r"\n(?=\S)", text):
        head, _, body = block.partition("\n")
        if "active" not in head:
            continue
        fields: dict[str, list[str]] = {}
        name = ""
        for line in body.splitlines():
            key, colon, value = line.strip().partition(":")
            if colon and line.startswith("  ") and not line.startswith(("   ", "\t")):
                name = key
                fields[name] = [value]
            elif name and line.strip():
                fields[name].append(line)
        yield head.split()[0], fields


def _rich(zone: str, line: str) -> FirewallRuleFact:
    words = dict(_RICH.findall(line))
    action = next((one for one in ("accept", "reject", "drop") if f" {one}" in line), "other")
    limit = re.search(r'limit value="(\d+)/(\w)', line)
    return _of_zone(
        zone,
        line,
        "limit" if limit and action == "accept" else action,
        ports=words.get("port", ""),
        protocol=words.get("protocol", ""),
        source=words.get("address", ""),
        limit_per_minute=int(limit[1]) * {"s": 60, "m": 1}.get(limit[2], 1) if limit else 0,
    )


def _of_zone(
    zone: str,
    raw: str,
    action: str,
    *,
    protocol: str = "",
    ports: str = "",
    source: str = "",
    to: str = "",
    limit_per_minute: int = 0,
) -> FirewallRuleFact:
    return FirewallRuleFact(
        backend="firewalld",
        id=f"{zone}/{raw}"[:200],
        direction="input",
        action=action,
        protocol=protocol,
        ports=ports,
        source=source,
        to=to,
        limit_per_minute=limit_per_minute,
        owner="firewalld",
        place=f"zone {zone}",
        raw=clean(raw, limit=_TEXT),
    )
