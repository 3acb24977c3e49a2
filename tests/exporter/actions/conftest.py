"""Facts as test cases pretend them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from narthex_exporter.contract.facts import (
    ConnectionFact,
    FirewallSettings,
    HostFact,
    ListenerFact,
    ProcessFact,
    SessionFact,
    UnitFact,
)
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.reachability import Layout

_PROCESS = {
    "ppid": 1, "user": "alice", "uid": 1000, "comm": "sleep", "cmdline": "sleep\x00300",
    "state": "S", "nice": 0, "threads": 1, "rss_bytes": 4096, "cpu_seconds": 0.5,
    "started_at_seconds": 1_700_000_000.0,
}  # fmt: skip
_UNIT = {
    "description": "a unit", "load_state": "loaded", "active_state": "active",
    "sub_state": "running",
}  # fmt: skip


@dataclass
class PretendedProcesses:
    found: list[ProcessFact] = field(default_factory=list)

    def get(self, pid: int) -> ProcessFact | None:
        return next((one for one in self.found if one.pid == pid), None)

    def list(self) -> Sequence[ProcessFact]:
        return self.found


@dataclass
class PretendedUnits:
    found: dict[str, UnitFact] = field(default_factory=dict)
    why: str = ""
    logged: tuple[str, ...] = ()

    def unavailable(self) -> str:
        return self.why

    def get(self, name: str) -> UnitFact | None:
        return self.found.get(name)

    def list(self) -> Sequence[UnitFact]:
        return list(self.found.values())

    def journal(self, _name: str, *, lines: int) -> Sequence[str]:
        return self.logged[-lines:]


class PretendedHost:
    def get(self) -> HostFact:
        return HostFact(
            hostname="web-1", os_name="Debian GNU/Linux", os_version="12", kernel="6.1.0",
            architecture="x86_64", virtualization="kvm", cpus=4, memory_bytes=8 << 30,
            boot_id="b", boot_seconds=1_700_000_000.0,
        )  # fmt: skip


@dataclass
class PretendedSessions:
    found: list[SessionFact] = field(default_factory=list)

    def list(self) -> Sequence[SessionFact]:
        return self.found


@dataclass
class PretendedSockets:
    listening: list[ListenerFact] = field(default_factory=list)
    connected: list[ConnectionFact] = field(default_factory=list)

    def listeners(self) -> Sequence[ListenerFact]:
        return self.listening

    def connections(self) -> Sequence[ConnectionFact]:
        return self.connected


@dataclass
class PretendedFiles:
    found: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> str | None:
        return self.found.get(path)

    def list(self, folder: str) -> Sequence[str]:
        prefix = folder.rstrip("/") + "/"
        inside = (path.removeprefix(prefix) for path in self.found if path.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in inside})


def pretended_firewall(facts: dict[str, Any], files: PretendedFiles) -> FirewallRules:
    """Give the real source over what nft is pretended to print, on a machine with two networks."""
    text = "\n".join(facts.get("nft", ())) + "\n"
    state = Outcome(code=0 if "firewalld" in facts else 127, output=facts.get("firewalld", ""))

    def run(step: RunProgram) -> Outcome:
        if step.argv[0] == "firewall-cmd":
            return state
        assert step.argv[0] == "nft"
        return Outcome(code=0, output=text)

    allowed = tuple((one[0], one[1]) for one in facts.get("always_allow", ()))
    addresses = (("eth0", ip_address("10.0.0.1")), ("wan0", ip_address("203.0.113.1")))
    routes = (("10.0.0.0/24", "eth0"), ("203.0.113.0/24", "wan0"), ("0.0.0.0/0", "wan0"))
    return FirewallRules(
        run=run,
        files=files,
        settings=lambda: FirewallSettings(always_allow=allowed, rollback_seconds=60.0),
        layout=lambda: Layout(
            addresses=addresses,
            routes=tuple((ip_network(network), name) for network, name in routes),
        ),
        now=lambda: 1_800_000_000.0,
    )


@dataclass
class PretendedFacts:
    processes: PretendedProcesses = field(default_factory=PretendedProcesses)
    units: PretendedUnits = field(default_factory=PretendedUnits)
    host: PretendedHost = field(default_factory=PretendedHost)
    sessions: PretendedSessions = field(default_factory=PretendedSessions)
    sockets: PretendedSockets = field(default_factory=PretendedSockets)
    files: PretendedFiles = field(default_factory=PretendedFiles)
    firewall: FirewallRules = field(
        default_factory=lambda: pretended_firewall({}, PretendedFiles())
    )


def pretended(facts: dict[str, Any]) -> PretendedFacts:
    """Build facts from a case: ``processes``, ``units``, ``sessions``, ``listeners``…"""
    units: dict[str, UnitFact] = {}
    for raw in facts.get("units", ()):
        fields = {**_UNIT, **raw, "required_by": tuple(raw.get("required_by", ()))}
        aliases = fields.pop("aliases", ())
        unit = UnitFact(**fields)
        units |= dict.fromkeys((unit.name, *aliases), unit)
    files = PretendedFiles(dict(facts.get("files", {})))
    return PretendedFacts(
        processes=PretendedProcesses(
            [ProcessFact(**{**_PROCESS, **raw}) for raw in facts.get("processes", ())]
        ),
        units=PretendedUnits(units, facts.get("units_unavailable", "")),
        sessions=PretendedSessions([SessionFact(**one) for one in facts.get("sessions", ())]),
        sockets=PretendedSockets(
            [ListenerFact(**one) for one in facts.get("listeners", ())],
            [ConnectionFact(**one) for one in facts.get("connections", ())],
        ),
        files=files,
        firewall=pretended_firewall(facts, files),
    )
