"""Take secrets out of lines before they are stored anywhere.

Rules are few and plain; each costs time linear in the line. A private key may span lines: what
stands between its first and last line is taken out too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.logs.config import RedactRule
from narthex_exporter.logs.record import Counters

MASK: Final = "[redacted]"
_KEY_LINES: Final = 200
_KEY: Final = r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
_KEY_END: Final = r"-----END [A-Z ]{0,40}PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where the pattern has a group, the group stays and only what follows it is taken out.

    A line that holds none of the hints, in lower case, is not searched.
    """

    name: str
    hints: tuple[str, ...]
    pattern: str


DEFAULT_RULES: Final = (
    _Rule(
        "password",
        ("passw", "passphrase", "pwd", "secret", "key", "token"),
        r"(?i)((?:password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?token"
        r"|auth[_-]?token|client[_-]?secret|secret[_-]?access[_-]?key)[\"']?\s{0,3}[=:]\s{0,3})"
        r"(?:\"[^\"]{1,512}\"|'[^']{1,512}'|[^\s\"',;&]{1,512})",
    ),
    _Rule(
        "authorization",
        ("authorization",),
        r"(?i)(\bauthorization[\"']?\s{0,3}[=:]\s{0,3}[\"']?)(?:\w{2,20} )?[^\s\"',]{4,2048}",
    ),
    _Rule("bearer", ("bearer",), r"(?i)(\bbearer\s{1,3})[A-Za-z0-9._~+/=-]{8,2048}"),
    _Rule(
        "url-password",
        ("://",),
        r"(\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]{0,100}:)[^\s/@]{1,200}(?=@)",
    ),
    _Rule("aws-key", ("akia", "asia"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    _Rule(
        "json-web-token",
        ("eyj",),
        r"\beyJ[A-Za-z0-9_-]{8,2048}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,2048}",
    ),
    _Rule(
        "platform-token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "xox"),
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|glpat-[A-Za-z0-9_-]{20,255}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,255})",
    ),
)


@dataclass(slots=True)
class Redactor:
    """Apply rules; remembers, by source, whether it is inside a private key."""

    counters: Counters
    extra: Iterable[RedactRule] = ()
    _rules: "list[tuple[_Rule, re.Pattern[str]]]" = field(init=False)
    _inside: dict[str, int] = field(default_factory=dict, init=False)
    _block: "re.Pattern[str]" = field(init=False)

    def __post_init__(self) -> None:
        extra = (_Rule(rule.name, ("",), rule.pattern) for rule in self.extra)
        self._rules = [(rule, re.compile(rule.pattern)) for rule in (*DEFAULT_RULES, *extra)]
        self._block = re.compile(rf"{_KEY}(.*?)(?:{_KEY_END}|\Z)", re.DOTALL)

    def clean(self, source: str, line: str) -> str:
        """Give the line without secrets; ``source`` tells lines apart that are not neighbours."""
        if source in self._inside:
            return self._within_key(source, line)
        if "PRIVATE KEY-----" in line:
            line = self._keys(source, line)
        lower = line.lower()
        for rule, pattern in self._rules:
            if any(hint in lower for hint in rule.hints):
                line, count = pattern.subn(_mask, line)
                if count:
                    self.counters.add(self.counters.redactions, rule.name, count)
        return line

    def _keys(self, source: str, line: str) -> str:
        cleaned, count = self._block.subn(MASK, line)
        if count:
            self.counters.add(self.counters.redactions, "private-key", count)
            begins, ends = len(re.findall(_KEY, line)), len(re.findall(_KEY_END, line))
            if begins > ends:
                self._inside[source] = _KEY_LINES
        return cleaned

    def _within_key(self, source: str, line: str) -> str:
        left = self._inside.pop(source) - 1
        end = re.search(_KEY_END, line)
        if end is not None:
            return MASK + self.clean(source, line[end.end() :])
        if left > 0:
            self._inside[source] = left
        return MASK


def _mask(match: "re.Match[str]") -> str:
    return (match[1] if match.re.groups else "") + MASK
