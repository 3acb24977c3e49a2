"""Facts as test cases pretend them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from narthex_exporter.contract.facts import (
    HostFact,
    JournalLine,
    ProcessFact,
    UnitFact,
    Waiting,
)

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
class PretendedFacts:
    processes: PretendedProcesses = field(default_factory=PretendedProcesses)
    units: PretendedUnits = field(default_factory=PretendedUnits)
    host: PretendedHost = field(default_factory=PretendedHost)


def pretended(facts: dict[str, Any]) -> PretendedFacts:
    """Build facts from a case's ``processes``, ``units`` and ``units_unavailable``."""
    units: dict[str, UnitFact] = {}
    for raw in facts.get("units", ()):
        fields = {**_UNIT, **raw, "required_by": tuple(raw.get("required_by", ()))}
        aliases = fields.pop("aliases", ())
        unit = UnitFact(**fields)
        units |= dict.fromkeys((unit.name, *aliases), unit)
    return PretendedFacts(
        processes=PretendedProcesses(
            [ProcessFact(**{**_PROCESS, **raw}) for raw in facts.get("processes", ())]
        ),
        units=PretendedUnits(units, facts.get("units_unavailable", "")),
    )
