"""Tell which packet filters are in force here, and how much is in them."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources import programs
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs

_RULE: Final = re.compile(rb'\{"rule": ?\{')
_CHAIN: Final = re.compile(r'\{"chain": ?\{')
_BEGIN: Final = re.compile(rb'\s*\{"nftables": ?\[')
_UFW_RULE: Final = b"### tuple ###"
_TIMEOUT_SECONDS: Final = 20.0
# What firewall-cmd --state exits with; see its EXIT CODES.
_FIREWALLD_RUNS: Final = 0
_FIREWALLD_STOPPED: Final = 252
# The kernel's names of tables that are loaded, and what prints the rules in them: by this name,
# for plain iptables-save may be the one that prints nftables'.
_LEGACY: Final = (
    ("ip", "net/ip_tables_names", ("xtables-legacy-multi", "iptables-save")),
    ("ip6", "net/ip6_tables_names", ("xtables-legacy-multi", "ip6tables-save")),
)


class Policy(NamedTuple):
    """What becomes of a packet that no rule of a hooked chain decided."""

    backend: str
    family: str
    table: str
    chain: str
    hook: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """One way to filter on this node; ``rules`` is None where another backend holds them."""

    backend: str
    enabled: bool
    rules: int | None = None
    policies: tuple[Policy, ...] = ()


@dataclass(slots=True)
class Firewalls:
    """The packet filters of our network namespace. Needs root."""

    paths: Paths

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for a node."""
        return cls(paths)

    def look(self, proc: Procfs) -> list[Firewall]:
        """Tell of each backend that this node has.

        Raises OSError, ValueError, UnavailableError.
        """
        found = (self._nftables(), self._legacy(proc), self._ufw(), self._firewalld())
        return [each for each in found if each is not None]

    def _nftables(self) -> Firewall | None:
        try:
            # --terse leaves out what is in sets, which may be a million addresses.
            output = _output(("nft", "--json", "--terse", "list", "ruleset"))
        except programs.MissingError:
            return None
        rules, policies = parse_ruleset(output)
        return _in_force("nftables", rules, policies)

    def _legacy(self, proc: Procfs) -> Firewall | None:
        """Tell of iptables' own tables; to name one that is not loaded would load it."""
        rules, policies, known = 0, [], False
        for family, names, program in _LEGACY:
            try:
                tables = proc.bytes(names)
            except FileNotFoundError:
                continue
            known = True
            if not tables.strip():
                continue
            try:
                more, chains = parse_legacy(family, _output(program))
            except programs.MissingError:
                return None  # a container's doing perhaps; what is in them we cannot tell
            rules += more
            policies += chains
        return _in_force("iptables", rules, policies) if known else None

    def _ufw(self) -> Firewall | None:
        try:
            settings = self.paths.rooted("/etc/ufw/ufw.conf").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        rules = 0
        for name in ("user.rules", "user6.rules"):
            try:
                rules += parse_ufw_rules(self.paths.rooted(f"/etc/ufw/{name}").read_bytes())
            except FileNotFoundError:
                continue
        return Firewall(backend="ufw", enabled=parse_ufw_enabled(settings), rules=rules)

    def _firewalld(self) -> Firewall | None:
        try:
            code = _run(("firewall-cmd", "--state")).code
        except programs.MissingError:
            return None
        if code not in {_FIREWALLD_RUNS, _FIREWALLD_STOPPED}:
            raise UnavailableError(f"firewall-cmd --state ended with {code}")
        # Its rules are nftables', and counted there.
        return Firewall(backend="firewalld", enabled=code == _FIREWALLD_RUNS)


def _output(argv: tuple[str, ...]) -> bytes:
    done = _run(argv)
    if done.code:
        why = done.error.strip().partition("\n")[0] or f"it ended with {done.code}"
        raise UnavailableError(f"{argv[0]}: {why}")
    return done.output


def _run(argv: tuple[str, ...]) -> programs.Done:
    return programs.run(argv, timeout_seconds=_TIMEOUT_SECONDS)


def _in_force(backend: str, rules: int, policies: list[Policy]) -> Firewall:
    drops = any(each.policy == "drop" for each in policies)
    return Firewall(
        backend=backend, enabled=rules > 0 or drops, rules=rules, policies=tuple(policies)
    )


def parse_ruleset(output: bytes) -> tuple[int, list[Policy]]:
    """Count the rules that ``nft --json list ruleset`` prints, and take the policies of chains.

    Ten thousand rules are 5 MB that would be 40 MB of objects: only chains are decoded. Within a
    string quotes are escaped, so that what is searched for stands for itself. Raises ValueError.
    """
    if not _BEGIN.match(output):
        raise ValueError("nft printed no ruleset")
    decoder, policies = json.JSONDecoder(), []
    text = output.decode("utf-8", "replace")
    for found in _CHAIN.finditer(text):
        entry, _ = decoder.raw_decode(text, found.start())
        policy = _policy(entry["chain"])
        if policy is not None:
            policies.append(policy)
    return sum(1 for _ in _RULE.finditer(output)), policies


def _policy(chain: dict[str, Any]) -> Policy | None:
    """Take a chain's policy; only chains that hang on a hook have one."""
    if "hook" not in chain or "policy" not in chain:
        return None
    words = (str(chain.get(key, "")) for key in ("family", "table", "name", "hook", "policy"))
    return Policy("nftables", *words)


def parse_legacy(family: str, output: bytes) -> tuple[int, list[Policy]]:
    """Count the rules that iptables-save prints, and take the policies of its own chains."""
    rules, policies, table = 0, [], ""
    for line in output.decode("utf-8", "replace").splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(("-A ", "[")):  # with --counters a rule begins with its counters
            rules += 1
        elif line.startswith(":"):
            chain, _, rest = line[1:].partition(" ")
            policy = rest.partition(" ")[0]
            if policy not in {"", "-"}:  # chains of people's own have none
                hook, policy = chain.lower(), policy.lower()
                policies.append(Policy("iptables", family, table, chain, hook, policy))
    return rules, policies


def parse_ufw_enabled(settings: bytes) -> bool:
    """Tell whether ufw.conf says that it is in force; see ufw(8)."""
    enabled = False
    for line in settings.splitlines():
        key, _, value = line.partition(b"=")
        if key.strip() == b"ENABLED":
            enabled = value.strip().strip(b"\"'").lower() == b"yes"
    return enabled


def parse_ufw_rules(rules: bytes) -> int:
    """Count the rules in ufw's user.rules; each has a line that tells what it was made from."""
    return sum(line.startswith(_UFW_RULE) for line in rules.splitlines())
