"""Facts as test cases pretend them."""
# ruff: noqa: ARG002 - they keep to protocols whose arguments they need not all

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from narthex_exporter.contract.containerfacts import (
    ComposeFile,
    ContainerFact,
    EngineFact,
    ImageFact,
    LimitsFact,
    LogFact,
    MountFact,
    NetworkFact,
    ProjectFact,
    PublishedPort,
    ServiceFact,
    StatsFact,
    UsageFact,
    VolumeFact,
)
from narthex_exporter.contract.facts import (
    AccountFact,
    CalendarFact,
    ConditionFact,
    ConnectionFact,
    HostFact,
    JournalLine,
    LimitFact,
    ListenerFact,
    OpenFileFact,
    ProcessDetailFact,
    ProcessFact,
    ProgramFact,
    SessionFact,
    UnitDetailFact,
    UnitFact,
    UnitFigures,
    UnitFile,
    Waiting,
)
from narthex_exporter.contract.firewallfacts import FirewallSettings
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
    variables: tuple[str, ...] = ()

    def get(self, pid: int) -> ProcessFact | None:
        return next((one for one in self.found if one.pid == pid), None)

    def list(self) -> Sequence[ProcessFact]:
        return self.found

    def parents(self) -> Mapping[int, int]:
        return {one.pid: one.ppid for one in self.found}

    def details(self, pid: int, start_ticks: int) -> ProcessDetailFact | None:
        found = self.get(pid)
        if found is None or found.start_ticks != start_ticks:
            return None
        return ProcessDetailFact(
            executable="/usr/bin/sleep",
            files=(OpenFileFact(descriptor=0, target="/dev/null"),),
            files_total=1,
            limits=(LimitFact(name="Max open files", soft="1024", hard="4096", unit="files"),),
            namespaces={"net": 7, "pid": 8},
            shared=("net",),
        )

    def environment(self, pid: int, start_ticks: int) -> Sequence[str] | None:
        found = self.get(pid)
        return self.variables if found and found.start_ticks == start_ticks else None


@dataclass
class PretendedUnits:
    found: dict[str, UnitFact] = field(default_factory=dict)
    why: str = ""
    logged: tuple[str, ...] = ()
    of_users: Mapping[str, "PretendedUnits"] = field(default_factory=dict)
    detailed: Mapping[str, UnitDetailFact] = field(default_factory=dict)
    complaints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What a check of a unit's files complains of, by a text that stands in them."""
    elapses: Mapping[str, CalendarFact] = field(default_factory=dict)

    def unavailable(self) -> str:
        return self.why

    def get(self, name: str) -> UnitFact | None:
        return self.found.get(name)

    def list(self) -> Sequence[UnitFact]:
        return list(self.found.values())

    def journal(
        self, name: str, *, lines: int, priority: str = "", since_minutes: int = 0
    ) -> Sequence[str]:
        return self.logged[-lines:]

    def of(self, user: str) -> "PretendedUnits":
        return self.of_users.get(user, PretendedUnits(why=f"{user} has no systemd running"))

    def details(self, name: str) -> UnitDetailFact | None:
        return self.detailed.get(name, UnitDetailFact()) if name in self.found else None

    def figures(self, names: Sequence[str]) -> Mapping[str, UnitFigures]:
        return {name: UnitFigures(memory_bytes=self.found[name].memory_bytes) for name in names}

    def verify(self, name: str, files: Mapping[str, str]) -> Sequence[str]:
        return [
            line
            for text, lines in self.complaints.items()
            for line in lines
            if any(text in content for content in files.values())
        ]

    def calendar(self, expression: str, *, times: int) -> CalendarFact:
        return self.elapses.get(expression, CalendarFact(problem="Invalid argument"))

    def follow(
        self, name: str, *, lines: int, after: str, stop: Waiting
    ) -> Iterator[JournalLine | None]:
        raise AssertionError(f"a plan follows nothing: {name}, {lines}, {after}, {stop}")


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
class PretendedAccounts:
    found: Mapping[str, AccountFact] = field(default_factory=dict)

    def get(self, name: str) -> AccountFact | None:
        return self.found.get(name)


@dataclass
class PretendedSupervisor:
    found: list[ProgramFact] = field(default_factory=list)
    why: str = ""

    def unavailable(self) -> str:
        return self.why

    def list(self) -> Sequence[ProgramFact]:
        return self.found

    def tail(self, program: str, *, size_bytes: int, errors: bool) -> str:
        return f"{program} printed"[-size_bytes:]


@dataclass
class PretendedContainers:
    found: list[ContainerFact] = field(default_factory=list)
    told_images: list[ImageFact] = field(default_factory=list)
    told_volumes: list[VolumeFact] = field(default_factory=list)
    told_networks: list[NetworkFact] = field(default_factory=list)
    told_projects: list[ProjectFact] = field(default_factory=list)
    logged: list[LogFact] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    program: tuple[str, ...] = ("docker-compose",)

    def unavailable(self) -> str:
        return self.why

    def problem(self, _engine: str) -> str:
        return self.why

    def engines(self) -> Sequence[EngineFact]:
        return [EngineFact(name="docker", socket="/var/run/docker.sock", problem=self.why)]

    def list(self) -> Sequence[ContainerFact]:
        return self.found

    def get(self, engine: str, name: str) -> ContainerFact | None:
        mine = (one for one in self.found if one.engine == engine)
        return next((one for one in mine if one.name == name), None)

    def inspect(self, _engine: str, _name: str) -> Mapping[str, Any] | None:
        return self.told

    def images(self) -> Sequence[ImageFact]:
        return self.told_images

    def volumes(self, *, with_sizes: bool) -> Sequence[VolumeFact]:
        del with_sizes
        return self.told_volumes

    def networks(self) -> Sequence[NetworkFact]:
        return self.told_networks

    def projects(self) -> Sequence[ProjectFact]:
        return self.told_projects

    def usage(self) -> Sequence[UsageFact]:
        return []

    def stats(self) -> Sequence[StatsFact]:
        return []

    def logs(
        self, _engine: str, name: str, *, lines: int, since_seconds: float = 0.0
    ) -> Sequence[LogFact]:
        mine = [one for one in self.logged if one.container == name]
        return [one for one in mine if one.at_seconds >= since_seconds][-lines:]

    def follow_logs(
        self,
        _engine: str,
        name: str,
        *,
        lines: int,
        since_seconds: float,
        cancelled: Callable[[], bool],
    ) -> Iterator[LogFact]:
        del cancelled
        yield from self.logs(_engine, name, lines=lines, since_seconds=since_seconds)

    def compose(self, _engine: str) -> tuple[str, ...]:
        return self.program


def pretended_containers(facts: dict[str, Any]) -> PretendedContainers:
    """Build the facts of engines from a case: ``containers``, ``images``, ``volumes``…"""
    docker = {"engine": "docker"}
    return PretendedContainers(
        found=[_container(raw) for raw in facts.get("containers", ())],
        told_images=[ImageFact(**{**docker, **_tuples(raw)}) for raw in facts.get("images", ())],
        told_volumes=[
            VolumeFact(**{**docker, **_tuples(raw)}) for raw in facts.get("volumes", ())
        ],
        told_networks=[
            NetworkFact(**{**docker, "id": "n1", **_tuples(raw)})
            for raw in facts.get("networks", ())
        ],
        told_projects=[_project(raw) for raw in facts.get("projects", ())],
        logged=[LogFact(**one) for one in facts.get("logs", ())],
        told=facts.get("inspect", {}),
        why=facts.get("containers_unavailable", ""),
        program=tuple(facts.get("compose", ("docker-compose",))),
    )


def _container(raw: dict[str, Any]) -> ContainerFact:
    fields = {"engine": "docker", "id": "c" * 64, "image": "web:1", **_tuples(raw)}
    fields["ports"] = tuple(PublishedPort(**one) for one in fields.get("ports", ()))
    fields["mounts"] = tuple(MountFact(**one) for one in fields.get("mounts", ()))
    fields["limits"] = LimitsFact(**fields.get("limits", {}))
    return ContainerFact(**fields)


def _project(raw: dict[str, Any]) -> ProjectFact:
    fields = {"engine": "docker", "working_dir": "/srv/shop", **raw}
    fields["files"] = tuple(
        ComposeFile(**one) for one in fields.get("files", ({"path": "/srv/shop/compose.yaml"},))
    )
    fields["services"] = tuple(ServiceFact(**_tuples(one)) for one in fields.get("services", ()))
    return ProjectFact(**fields)


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in raw.items()}


@dataclass
class PretendedFacts:
    processes: PretendedProcesses = field(default_factory=PretendedProcesses)
    units: PretendedUnits = field(default_factory=PretendedUnits)
    host: PretendedHost = field(default_factory=PretendedHost)
    sessions: PretendedSessions = field(default_factory=PretendedSessions)
    sockets: PretendedSockets = field(default_factory=PretendedSockets)
    files: PretendedFiles = field(default_factory=PretendedFiles)
    accounts: PretendedAccounts = field(default_factory=PretendedAccounts)
    supervisor: PretendedSupervisor = field(default_factory=PretendedSupervisor)
    containers: PretendedContainers = field(default_factory=PretendedContainers)
    firewall: FirewallRules = field(
        default_factory=lambda: pretended_firewall({}, PretendedFiles())
    )


def pretended(facts: dict[str, Any]) -> PretendedFacts:
    """Build facts from a case: ``processes``, ``units``, ``sessions``, ``listeners``…"""
    units = _units(facts)
    units.of_users = {user: _units(one) for user, one in facts.get("users_units", {}).items()}
    accounts = [
        AccountFact(**{"gid": raw["uid"], **raw, "groups": tuple(raw.get("groups", ()))})
        for raw in facts.get("accounts", ())
    ]
    files = PretendedFiles(dict(facts.get("files", {})))
    return PretendedFacts(
        processes=PretendedProcesses(
            [ProcessFact(**{**_PROCESS, **raw}) for raw in facts.get("processes", ())]
        ),
        units=units,
        sessions=PretendedSessions([SessionFact(**one) for one in facts.get("sessions", ())]),
        sockets=PretendedSockets(
            [ListenerFact(**one) for one in facts.get("listeners", ())],
            [ConnectionFact(**one) for one in facts.get("connections", ())],
        ),
        files=files,
        accounts=PretendedAccounts({one.name: one for one in accounts}),
        supervisor=PretendedSupervisor(
            [ProgramFact(**one) for one in facts.get("programs", ())],
            facts.get("supervisor_unavailable", ""),
        ),
        containers=pretended_containers(facts),
        firewall=pretended_firewall(facts, files),
    )


def _units(facts: Mapping[str, Any]) -> PretendedUnits:
    units: dict[str, UnitFact] = {}
    details: dict[str, UnitDetailFact] = {}
    for raw in facts.get("units", ()):
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        aliases = fields.get("aliases", ())
        files = tuple(UnitFile(**one) for one in fields.pop("files", ()))
        conditions = tuple(ConditionFact(**one) for one in fields.pop("conditions", ()))
        properties = fields.pop("properties", {})
        unit = UnitFact(**{**_UNIT, **fields})
        details[unit.name] = UnitDetailFact(
            files=files, conditions=conditions, properties=properties
        )
        units |= dict.fromkeys((unit.name, *aliases), unit)
    return PretendedUnits(
        units,
        facts.get("units_unavailable", ""),
        detailed=details,
        complaints=facts.get("complaints", {}),
        elapses={
            expression: CalendarFact(normalized=expression, elapses=tuple(times))
            for expression, times in facts.get("elapses", {}).items()
        },
    )
