"""Read systemd's units over D-Bus. See org.freedesktop.systemd1(5)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from narthex_exporter.contract.facts import JournalLine, UnitFact, Waiting
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.sources import unitjournal
from narthex_exporter.sources.dbus import SYSTEM_BUS, Address, Bus, CallError, connect
from narthex_exporter.sources.text import clean

BUS_NAME: Final = "org.freedesktop.systemd1"
MANAGER: Final = Address(
    bus_name=BUS_NAME,
    path="/org/freedesktop/systemd1",
    interface="org.freedesktop.systemd1.Manager",
)
_UNIT: Final = "org.freedesktop.systemd1.Unit"
_UNSET: Final = 2**64 - 1
_LINE_CHARACTERS: Final = 1000
# Unit types with an interface of their own that tells memory, tasks and results.
_INTERFACES: Final = {
    "service": "org.freedesktop.systemd1.Service",
    "socket": "org.freedesktop.systemd1.Socket",
    "timer": "org.freedesktop.systemd1.Timer",
    "path": "org.freedesktop.systemd1.Path",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The systemd units of this node.

    ``run`` and ``stream`` start journalctl, and are the actor's runner's.
    """

    run: Callable[[RunProgram], Outcome]
    stream: Callable[[RunProgram, Waiting], Iterator[bytes]]
    bus_socket: Path = SYSTEM_BUS
    runtime: Path = Path("/run/systemd/system")

    def unavailable(self) -> str:
        """Say why systemd cannot be asked; empty when it can. See sd_booted(3)."""
        if not self.runtime.is_dir():
            return "systemd is not running"
        if not self.bus_socket.exists():
            return "the system bus is not running"
        return ""

    def get(self, name: str) -> UnitFact | None:
        """Look one unit up, loading it if need be; ``None`` when there is no such unit."""
        with connect(self.bus_socket) as bus:
            try:
                path = bus.call(MANAGER, "LoadUnit", "s", (name,))[0]
                unit = bus.properties(Address(bus_name=BUS_NAME, path=path, interface=_UNIT))
                own = self._own_properties(bus, path, name)
            except CallError as error:
                if error.name in {
                    "org.freedesktop.systemd1.NoSuchUnit",
                    "org.freedesktop.DBus.Error.InvalidArgs",
                }:
                    return None
                raise
        # systemd invents a unit for any name that it is asked for.
        if unit["LoadState"] == "not-found" and unit["ActiveState"] == "inactive":
            return None
        return _fact(unit, own)

    def list(self) -> Sequence[UnitFact]:
        """List loaded units and installed unit files."""
        with connect(self.bus_socket) as bus:
            loaded = bus.call(MANAGER, "ListUnits")[0]
            files = bus.call(MANAGER, "ListUnitFiles", timeout_seconds=30.0)[0]
        states = {Path(path).name: (path, state) for path, state in files}
        found = {}
        for name, description, load, active, sub, *_ in loaded:
            path, state = states.get(name, ("", ""))
            found[name] = UnitFact(
                name=name,
                description=clean(description, limit=256),
                load_state=load,
                active_state=active,
                sub_state=sub,
                unit_file_state=state,
                fragment_path=path,
            )
        for name, (path, state) in states.items():
            if name not in found and "@." not in name and state != "alias":
                found[name] = UnitFact(
                    name=name,
                    description="",
                    load_state="masked" if state.startswith("masked") else "stub",
                    active_state="inactive",
                    sub_state="dead",
                    unit_file_state=state,
                    fragment_path=path,
                )
        return [unit for unit in found.values() if unit.load_state != "not-found"]

    def journal(self, name: str, *, lines: int) -> Sequence[str]:
        """Read the last lines that a unit logged; empty where there is no journal."""
        done = self.run(
            RunProgram(
                argv=(
                    "journalctl",
                    f"--unit={name}",
                    f"--lines={lines}",
                    "--output=short-iso",
                    "--no-pager",
                    "--quiet",
                ),
                timeout_seconds=10.0,
            )
        )
        if done.code != 0:
            return ()
        return tuple(
            clean(line, limit=_LINE_CHARACTERS) for line in done.output.splitlines()[-lines:]
        )

    def follow(
        self, name: str, *, lines: int, after: str, stop: Waiting
    ) -> Iterator[JournalLine | None]:
        """Tell each line that a unit logs, and ``None`` while there is none."""
        argv = unitjournal.arguments(name, lines=lines, after=after)
        return unitjournal.parse(self.stream(RunProgram(argv=argv), stop))

    def _own_properties(self, bus: Bus, path: str, name: str) -> dict[str, Any]:
        interface = _INTERFACES.get(name.rpartition(".")[2])
        if interface is None:
            return {}
        return bus.properties(Address(bus_name=BUS_NAME, path=path, interface=interface))


def _fact(unit: dict[str, Any], own: dict[str, Any]) -> UnitFact:
    since = unit["ActiveEnterTimestamp"]
    return UnitFact(
        name=unit["Id"],
        description=clean(unit["Description"], limit=256),
        load_state=unit["LoadState"],
        active_state=unit["ActiveState"],
        sub_state=unit["SubState"],
        unit_file_state=unit["UnitFileState"],
        fragment_path=unit["FragmentPath"],
        aliases=tuple(sorted(set(unit["Names"]) - {unit["Id"]})),
        can_reload=unit["CanReload"],
        main_pid=own.get("MainPID", 0),
        required_by=tuple(sorted(unit["RequiredBy"])),
        triggers=tuple(sorted(unit["Triggers"])),
        memory_bytes=_known(own.get("MemoryCurrent")),
        tasks=_known(own.get("TasksCurrent")),
        active_since_seconds=since / 1e6 if since and unit["ActiveState"] == "active" else None,
        result=own.get("Result", ""),
        restart=own.get("Restart", ""),
        exit_status=own.get("ExecMainStatus"),
        restarts=own.get("NRestarts"),
    )


def _known(value: int | None) -> int | None:
    return None if value is None or value == _UNSET else value
