"""Write ufw's commands for our rules; see ufw(8)."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from narthex_exporter.actions.firewalltable import OwnRule, own_rules
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.firewallfacts import (
    FirewallRuleFact,
    FirewallSettings,
    FirewallView,
)
from narthex_exporter.contract.steps import RemoveFile, RunProgram, WriteFile

# All that ufw keeps of what its commands change.
FILES: Final = (
    "/etc/ufw/user.rules",
    "/etc/ufw/user6.rules",
    "/etc/ufw/ufw.conf",
    "/etc/default/ufw",
)
_VERBS: Final = {"accept": "allow", "drop": "deny", "limit": "limit"}
_OWN: Final = re.compile(r"narthex ([0-9a-f]{8}) (\S+)(?: (.*))?")
ALWAYS: Final = "narthex always"


def ufw(*words: str) -> RunProgram:
    """Run ufw; ``--force`` keeps it from asking, and is taken only where it would ask."""
    force = ("--force",) if words[0] in {"enable", "delete"} else ()
    return RunProgram(argv=("ufw", *force, *words))


def own_ufw_rules(facts: Sequence[FirewallRuleFact]) -> list[OwnRule]:
    """Take the rules that we gave to ufw, each once for both versions of IP."""
    found: dict[str, OwnRule] = {}
    for one in facts:
        own = _OWN.fullmatch(one.comment) if one.backend == "ufw" else None
        if own is not None and own[1] not in found:
            found[own[1]] = OwnRule(
                action=one.action,
                protocol=one.protocol,
                ports=one.ports,
                source=_whole(one.source),
                per_minute=one.limit_per_minute,
                comment=own[3] or "",
                run=own[2],
            )
    return list(found.values())


def add(rule: OwnRule, *, first: bool) -> RunProgram:
    """Add a rule: first where it must decide before the others."""
    comment = f"narthex {rule.id} {rule.run} {rule.comment}".rstrip()
    return ufw(*(("prepend",) if first else ()), *_words(rule), "comment", comment)


def remove(rule: OwnRule) -> RunProgram:
    """Remove a rule."""
    return ufw("delete", *_words(rule))


def always(settings: FirewallSettings, rules: Sequence[FirewallRuleFact]) -> Iterator[RunProgram]:
    """Let in who must always be let in, before all others, unless ufw does so by now."""
    there = _there(rules)
    for rule in _always(settings):
        if (rule.source, rule.ports) not in there:
            yield ufw("prepend", *_words(rule), "comment", ALWAYS)


def always_first(
    settings: FirewallSettings, rules: Sequence[FirewallRuleFact]
) -> Iterator[RunProgram]:
    """Put who must always be let in before a rule that was put first just now."""
    there = _there(rules)
    for rule in _always(settings):
        if (rule.source, rule.ports) in there:
            yield remove(rule)
        yield ufw("prepend", *_words(rule), "comment", ALWAYS)


def _there(rules: Sequence[FirewallRuleFact]) -> set[tuple[str, str]]:
    return {(_whole(one.source), one.ports) for one in rules if one.comment == ALWAYS}


def _always(settings: FirewallSettings) -> Iterator[OwnRule]:
    for source, port in reversed(settings.always_allow):
        yield OwnRule(
            action="accept",
            protocol="tcp" if port else "",
            ports=str(port or ""),
            source=source,
        )


def revert(facts: Facts, *, active: bool) -> Iterator[RunProgram | WriteFile | RemoveFile]:
    """Put ufw's files back as they are now, and have it read them again."""
    for path in FILES:
        content = facts.files.read(path)
        if content is not None:
            yield WriteFile(path=path, content=content)
    yield ufw("reload") if active else ufw("disable")


def _words(rule: OwnRule) -> tuple[str, ...]:
    words = [_VERBS[rule.action]]
    if rule.protocol:
        words += ["proto", rule.protocol]
    words += ["from", rule.source or "any", "to", "any"]
    if rule.ports:
        words += ["port", rule.ports.replace("-", ":")]
    return tuple(words)


def _whole(source: str) -> str:
    if not source or "/" in source:
        return source
    return f"{source}/{128 if ':' in source else 32}"


def all_own(view: FirewallView) -> list[OwnRule]:
    """Take all rules of ours, in our table and in ufw."""
    return own_rules(view.rules) + own_ufw_rules(view.rules)
