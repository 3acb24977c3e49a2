"""Read the ruleset that nft prints, as text.

Its JSON leaves out all that iptables' own extensions say (``{"xt": {"name": "DNAT"}}``), which is
most of what Docker and ufw write; the text has it translated. See nft(8).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

# With handles; priorities and protocols as numbers, whose names a machine may not know; without
# counters and the age of elements.
_OPTIONS: Final = ("--stateless", "--handle", "--numeric-priority", "--numeric-protocol")
LIST: Final = ("nft", *_OPTIONS, "list", "ruleset")

# What a rule of ours says of itself: its id, run, end (Unix time, 0 for never) and words.
OWN_COMMENT: Final = re.compile(r"n1 ([0-9a-f]{8}) (\S+) (\d{1,12})(?: (.*))?")

_TOKEN: Final = re.compile(r'"[^"]*"|[{},]|[^\s{},"]+')
_BLOCK: Final = re.compile(r"(\w+) (\S+)(?: (\S+))? \{(?: # handle (\d+))?")
_HANDLE: Final = re.compile(r"\s*# handle (\d+)$")
_COMMENT: Final = re.compile(r'\s*comment "([^"]*)"$')
_BASE: Final = re.compile(
    r"type (\w+) hook (\w+)(?: devices? .*?)? priority (-?\d+);(?: policy (\w+);)?"
)
_FIELDS_OF: Final = frozenset(
    {"ip", "ip6", "tcp", "udp", "th", "sctp", "dccp", "udplite", "icmp", "icmpv6", "meta", "ether"}
)
_BARE_KEYS: Final = frozenset({"iif", "iifname", "oif", "oifname"})
_OPERATORS: Final = frozenset({"==", "!=", "<", ">", "<=", ">="})
_LOG_OPTIONS: Final = frozenset({"prefix", "level", "group", "snaplen", "queue-threshold"})
_DIRECTIONS: Final = frozenset({"original", "reply"})

ChainKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One condition: each of ``keys`` (more than one where they are joined) against ``values``.

    A value is a word, a range, a prefix or ``@set``. ``mask`` is the word behind ``&``.
    """

    keys: tuple[str, ...]
    operator: str
    values: tuple[str, ...]
    mask: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A condition, or an effect on one, that is not understood here."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A condition on a rate or a count; ``over`` holds only beyond it."""

    over: bool
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule does, and to which chain or ``address:port``.

    ``kind`` is ``accept``, ``drop``, ``reject``, ``return``, ``jump``, ``goto``, ``dnat``,
    ``redirect`` or ``unknown``.
    """

    kind: str
    to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMap:
    """A verdict looked up by what a packet is; ``name`` is that of a map, else ``elements``."""

    keys: tuple[str, ...]
    elements: tuple[tuple[str, Verdict], ...] = ()
    name: str = ""


Part = Match | Unknown | Limit | Verdict | VerdictMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. ``text`` is as nft prints it, without comment and handle."""

    chain: ChainKey
    handle: int
    text: str
    parts: tuple[Part, ...]
    comment: str = ""

    @property
    def place(self) -> str:
        """Where it stands, in nft's words."""
        return " ".join(self.chain)

    def describe(self) -> str:
        """Give place and text."""
        return f"{self.place}: {self.text}"


@dataclass(slots=True, kw_only=True)
class Chain:
    """One chain; ``hook`` is empty where only rules lead to it."""

    key: ChainKey
    kind: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Ruleset:
    """All chains and sets; a set whose elements were not printed is ``None``."""

    chains: dict[ChainKey, Chain] = field(default_factory=dict)
    sets: dict[ChainKey, tuple[str, ...] | None] = field(default_factory=dict)
    maps: dict[ChainKey, tuple[tuple[str, Verdict], ...]] = field(default_factory=dict)

    def without(self, family: str, table: str) -> "Ruleset":
        """Give the rest of the ruleset without one table."""
        return Ruleset(
            chains={key: one for key, one in self.chains.items() if key[:2] != (family, table)},
            sets={key: one for key, one in self.sets.items() if key[:2] != (family, table)},
            maps={key: one for key, one in self.maps.items() if key[:2] != (family, table)},
        )

    def joined(self, other: "Ruleset") -> "Ruleset":
        """Give both together."""
        return Ruleset(
            chains=self.chains | other.chains,
            sets=self.sets | other.sets,
            maps=self.maps | other.maps,
        )


def parse_ruleset(text: str) -> Ruleset:
    """Parse what ``nft list ruleset`` prints. Objects of other kinds are passed over."""
    found = Ruleset()
    lines = iter(text.splitlines())
    family = table = ""
    for line in lines:
        block = _BLOCK.match(line.strip())
        if block is None:
            continue
        word, first, second = block[1], block[2], block[3]
        if word == "table":
            family, table = first, second or ""
            continue
        key = (family, table, first)
        inside = list(_inside(lines))
        if word == "chain":
            found.chains[key] = _chain(key, inside)
        elif word in {"set", "map"}:
            _add_set(found, key, inside, is_map=word == "map")
    return found


def table_text(text: str, family: str, name: str) -> str:
    """Cut one table out of what nft prints, without handles; empty where it is not there."""
    kept: list[str] = []
    for line in text.splitlines():
        if line.startswith(f"table {family} {name} {{"):
            kept = [""]
        if kept:
            kept.append(_HANDLE.sub("", line))
            if line == "}":
                return "\n".join(kept[1:]) + "\n"
    return ""


def _inside(lines: Iterator[str]) -> Iterator[str]:
    """Give the lines of a block up to its end, which stands alone on its line."""
    for line in lines:
        if line.strip() == "}":
            return
        yield line.strip()


def _chain(key: ChainKey, lines: list[str]) -> Chain:
    chain = Chain(key=key)
    for line in lines:
        base = _BASE.match(line)
        if base is not None:
            chain.kind, chain.hook, chain.priority = base[1], base[2], int(base[3])
            chain.policy = base[4] or "accept"
        elif line and not line.startswith(("comment ", "#")):
            chain.rules.append(parse_rule(key, line))
    return chain


def parse_rule(key: ChainKey, line: str) -> Rule:
    """Parse one rule's line."""
    handle = _HANDLE.search(line)
    line = line[: handle.start()] if handle else line
    comment = _COMMENT.search(line)
    text = line[: comment.start()] if comment else line
    return Rule(
        chain=key,
        handle=int(handle[1]) if handle else 0,
        text=" ".join(text.split()),
        parts=tuple(_parts(_Tokens(_TOKEN.findall(text)))),
        comment=comment[1] if comment else "",
    )


def _add_set(found: Ruleset, key: ChainKey, lines: list[str], *, is_map: bool) -> None:
    text = " ".join(lines)
    _, there, rest = text.partition("elements = {")
    is_dynamic = any(line.startswith("flags") and "dynamic" in line for line in lines)
    tokens = _Tokens(_TOKEN.findall("{" + rest)) if there else None
    if is_map:
        found.maps[key] = tuple(_verdicts(tokens)) if tokens else ()
    else:
        elements = tuple(_elements(tokens)) if tokens else ()
        # What packets put into a set is known to the kernel only at that moment.
        found.sets[key] = None if is_dynamic else elements


@dataclass(slots=True)
class _Tokens:
    words: list[str]
    at: int = 0

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.words[index] if index < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def rest(self) -> str:
        words = self.words[self.at :]
        self.at = len(self.words)
        return " ".join(words)

    def braces(self) -> list[str]:
        """Take a balanced block, and give what is in it."""
        depth, inside = 0, []
        while word := self.take():
            depth += (word == "{") - (word == "}")
            if depth == 0:
                break
            inside.append(word)
        return inside[1:]


def _parts(tokens: _Tokens) -> Iterator[Part]:
    while tokens.peek():
        word = tokens.peek()
        implied = _implied(tokens)
        if implied is not None:
            yield implied
        part = _statement(tokens)
        if part is not None:
            yield part
        if tokens.peek() == word and part is None:
            tokens.take()


def _implied(tokens: _Tokens) -> Match | None:
    """Give the condition that nft leaves out where what follows has it by itself."""
    words = tuple(tokens.peek(ahead) for ahead in range(3))
    if words[:2] == ("reject", "with") and words[2] == "tcp":
        return Match(keys=("meta l4proto",), operator="==", values=("tcp",))
    family = words[2] if words[:2] == ("reject", "with") else words[1]
    if words[0] in {"reject", "dnat"} and family in _VERSIONS:
        return Match(keys=("meta nfproto",), operator="==", values=(_VERSIONS[family],))
    return None


def _statement(tokens: _Tokens) -> Part | None:
    word = tokens.peek()
    if word == "ct" and tokens.peek(1) == "count":
        return _count(tokens)
    if word in _VERDICTS:
        return _verdict(tokens)
    read = _READERS.get(word, _match)
    return read(tokens)


def _count(tokens: _Tokens) -> Part:
    tokens.at += 2
    over = tokens.peek() == "over"
    tokens.at += 1 + over
    return Limit(over=over)


def _extension(tokens: _Tokens) -> Part:
    """Read what iptables' extensions are called, where nft cannot translate them."""
    kind = f"xt {tokens.peek(1)} {tokens.peek(2)}"
    tokens.at += 3
    return Unknown(kind) if "match" in kind else Verdict(kind="unknown", to=kind)


_VERDICTS: Final = frozenset(
    {"accept", "drop", "reject", "return", "continue", "jump", "goto", "dnat", "redirect", "queue",
     "tproxy"}
)  # fmt: skip
_VERSIONS: Final = {"ip": "ipv4", "icmp": "ipv4", "ip6": "ipv6", "icmpv6": "ipv6"}
_EFFECTS: Final = frozenset(
    {"counter", "log", "masquerade", "snat", "notrack", "flow", "quota", "dup", "synproxy", "last"}
)


def _verdict(tokens: _Tokens) -> Part | None:
    word = tokens.take()
    if word in {"accept", "drop", "return"}:
        return Verdict(kind=word)
    if word in {"jump", "goto"}:
        return Verdict(kind=word, to=tokens.take())
    words = tokens.rest().split() if word != "continue" else []
    if word in {"dnat", "redirect"}:
        return _rewriting(word, words)
    known = {"reject": Verdict(kind="reject"), "continue": None}
    return known.get(word, Verdict(kind="unknown", to=word))


def _rewriting(word: str, words: list[str]) -> Verdict:
    if words[:1] in (["ip"], ["ip6"]):
        words = words[1:]
    to = words[1] if words[:1] == ["to"] and len(words) > 1 else ""
    if word == "redirect":
        return Verdict(kind="redirect", to=to.lstrip(":"))
    # A target that is looked up, or taken from the packet, is not known.
    plain = to and to not in _FIELDS_OF
    return Verdict(kind="dnat", to=to) if plain else Verdict(kind="unknown", to="dnat")


def _effect(tokens: _Tokens) -> Part | None:
    """Pass over what changes no verdict here."""
    word = tokens.take()
    if word == "counter":
        if tokens.peek() == "packets":
            tokens.at += 4
        elif tokens.peek() == "name":
            tokens.at += 2
    elif word == "log":
        while tokens.peek() in _LOG_OPTIONS or tokens.peek() == "flags":
            tokens.at += 2
            while tokens.peek() == ",":
                tokens.at += 2
    elif word not in {"notrack", "last"}:
        tokens.rest()
    return None


def _limit(tokens: _Tokens) -> Part:
    tokens.take()
    if tokens.peek() != "rate":
        return Unknown(f"limit {tokens.rest()}")
    tokens.take()
    over = tokens.peek() == "over"
    tokens.at += over
    text = tokens.take()
    if tokens.peek() == "burst":
        tokens.at += 3
    return Limit(over=over, text=text)


def _dynamic(tokens: _Tokens) -> Part | None:
    """Read what is kept for each address: a rate, a count, or a mere note of it."""
    while tokens.peek() not in {"{", ""}:
        tokens.take()
    inside = _Tokens(tokens.braces())
    while inside.peek():
        if inside.peek() == "limit":
            return _limit(inside)
        if inside.peek() == "ct" and inside.peek(1) == "count":
            return Limit(over=inside.peek(2) == "over")
        inside.take()
    return None


def _match(tokens: _Tokens) -> Part | None:
    keys = []
    while True:
        key = _key(tokens)
        if key is None:
            return _not_understood(tokens)
        keys.append(key)
        if tokens.peek() != ".":
            break
        tokens.take()
    if tokens.peek() == "set":  # `meta mark set 0x1`
        tokens.at += 2
        return Unknown(f"{keys[0]} set")
    if tokens.peek() == "vmap":
        tokens.take()
        if tokens.peek().startswith("@"):
            return VerdictMap(keys=tuple(keys), name=tokens.take()[1:])
        return VerdictMap(keys=tuple(keys), elements=tuple(_verdicts(tokens)))
    mask = ""
    if tokens.peek() == "&":
        tokens.take()
        mask = tokens.take()
        while mask.startswith("(") and not mask.endswith(")") and tokens.peek():
            mask += tokens.take()
    operator = tokens.take() if tokens.peek() in _OPERATORS else "=="
    values = tuple(_values(tokens))
    if tokens.peek() == "/":  # `tcp flags syn / fin,syn,rst,ack`
        tokens.take()
        mask = "|".join(_values(tokens))
    return Match(keys=tuple(keys), operator=operator, values=values, mask=mask)


def _key(tokens: _Tokens) -> str | None:
    word = tokens.peek()
    if word in _BARE_KEYS:
        return tokens.take()
    if word in _FIELDS_OF:
        tokens.take()
        name = tokens.take()
        return name if word == "meta" and name in _BARE_KEYS else f"{word} {name}"
    if word == "ct":
        tokens.take()
        words = [tokens.take()]
        if words[0] in _DIRECTIONS:
            words.append(tokens.take())
            if words[1] in {"ip", "ip6"}:
                words.append(tokens.take())
        return " ".join(("ct", *words))
    if word == "fib":
        words = [tokens.take()]
        while tokens.peek() and tokens.peek() not in {"type", "oif", "oifname"}:
            words.append(tokens.take())
        words.append(tokens.take())
        return " ".join(words)
    return None


def _not_understood(tokens: _Tokens) -> Part | None:
    """Pass over words up to something known, so that the verdict is still found."""
    words = []
    known = _VERDICTS | _EFFECTS | _FIELDS_OF | _BARE_KEYS | {"ct", "fib", "limit", ""}
    while True:
        words.append(tokens.take())
        if tokens.peek() in known:
            return Unknown(" ".join(filter(None, words)))


def _values(tokens: _Tokens) -> Iterator[str]:
    if tokens.peek() == "{":
        yield from _elements(tokens)
        return
    yield _joined(tokens)
    while tokens.peek() == ",":
        tokens.take()
        yield _joined(tokens)


def _joined(tokens: _Tokens) -> str:
    """Take one value, or several joined with dots."""
    words = [tokens.take()]
    while tokens.peek() == "." and tokens.peek(1):
        tokens.take()
        words.append(tokens.take())
    return " . ".join(words)


def _elements(tokens: _Tokens) -> Iterator[str]:
    """Give a set's elements without what is kept with each."""
    inside = _Tokens(tokens.braces())
    while inside.peek():
        yield _joined(inside)
        while inside.peek() not in {",", ""}:
            inside.take()
        inside.take()


def _verdicts(tokens: _Tokens) -> Iterator[tuple[str, Verdict]]:
    """Give the pairs of a verdict map."""
    inside = _Tokens(tokens.braces())
    while inside.peek():
        key = _joined(inside)
        while inside.peek() not in {":", ""}:
            inside.take()
        inside.take()
        word = inside.take()
        to = inside.take() if word in {"jump", "goto"} else ""
        kind = word if word in {"accept", "drop", "return", "jump", "goto"} else "unknown"
        yield key, Verdict(kind=kind, to=to)
        while inside.peek() not in {",", ""}:
            inside.take()
        inside.take()


_READERS: Final[dict[str, Callable[[_Tokens], Part | None]]] = {
    **dict.fromkeys(_EFFECTS, _effect),
    **dict.fromkeys(("meter", "add", "update", "delete"), _dynamic),
    "limit": _limit,
    "xt": _extension,
}
