"""Read systemd's units over D-Bus. See org.freedesktop.systemd1(5)."""

import contextlib
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from narthex_exporter.contract.facts import (
    CalendarFact,
    JournalLine,
    UnitDetailFact,
    UnitFact,
    UnitFigures,
    Waiting,
)
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources import unitchecks, unitdetails, unitjournal
from narthex_exporter.sources.dbus import (
    SYSTEM_BUS,
    Address,
    Bus,
    BusError,
    CallError,
    connect,
    connect_direct,
)
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
    "mount": "org.freedesktop.systemd1.Mount",
    "automount": "org.freedesktop.systemd1.Automount",
    "swap": "org.freedesktop.systemd1.Swap",
    "slice": "org.freedesktop.systemd1.Slice",
    "scope": "org.freedesktop.systemd1.Scope",
}
_NO_SUCH_UNIT: Final = frozenset(
    {"org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.InvalidArgs"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The systemd units of this node, or of one ``user``.

    ``run`` and ``stream`` start journalctl and systemd-analyze, and are the actor's runner's.
    """

    run: Callable[[RunProgram], Outcome]
    stream: Callable[[RunProgram, Waiting], Iterator[bytes]]
    bus_socket: Path = SYSTEM_BUS
    runtime: Path = Path("/run/systemd/system")
    users: Path = Path("/run/user")
    user: str = ""

    def of(self, user: str) -> "Units":
        """Give the same for the units of a user's own systemd."""
        return replace(self, user=user)

    def unavailable(self) -> str:
        """Say why systemd cannot be asked; empty when it can. See sd_booted(3)."""
        if not self.runtime.is_dir():
            return "systemd is not running"
        if not self.user:
            return "" if self.bus_socket.exists() else "the system bus is not running"
        try:
            found = manager_socket(self.user, self.users)
        except BusError as error:
            return str(error)
        return "" if found[0].is_socket() else f"{self.user} has no systemd running"

    def get(self, name: str) -> UnitFact | None:
        """Look one unit up, loading it if need be; ``None`` when there is no such unit."""
        with self._connected() as bus:
            try:
                path = bus.call(MANAGER, "LoadUnit", "s", (name,))[0]
                unit = bus.properties(Address(bus_name=BUS_NAME, path=path, interface=_UNIT))
                own = self._own_properties(bus, path, name)
            except CallError as error:
                if error.name in _NO_SUCH_UNIT:
                    return None
                raise
        # systemd invents a unit for any name that it is asked for.
        if unit["LoadState"] == "not-found" and unit["ActiveState"] == "inactive":
            return None
        return _fact(unit, own)

    def list(self) -> Sequence[UnitFact]:
        """List loaded units and installed unit files."""
        with self._connected() as bus:
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

    def journal(
        self, name: str, *, lines: int, priority: str = "", since_minutes: int = 0
    ) -> Sequence[str]:
        """Read the last lines that a unit logged; empty where there is no journal."""
        options = [f"--lines={lines}", "--output=short-iso", "--no-pager", "--quiet"]
        if priority:
            options.append(f"--priority={priority}")
        if since_minutes:
            options.append(f"--since=-{since_minutes}min")
        if self.user:
            uid = manager_socket(self.user, self.users)[1]
            options += ["--", f"_SYSTEMD_USER_UNIT={name}", f"_UID={uid}"]
        else:
            options.append(f"--unit={name}")
        done = self.run(RunProgram(argv=("journalctl", *options), timeout_seconds=10.0))
        if done.code != 0:
            return ()
        return tuple(
            clean(line, limit=_LINE_CHARACTERS) for line in done.output.splitlines()[-lines:]
        )

    def details(self, name: str) -> UnitDetailFact | None:
        """Look into one unit; ``None`` when there is no such unit."""
        with self._connected() as bus:
            try:
                path = bus.call(MANAGER, "LoadUnit", "s", (name,))[0]
                unit = bus.properties(Address(bus_name=BUS_NAME, path=path, interface=_UNIT))
                own = self._own_properties(bus, path, name)
            except CallError as error:
                if error.name in _NO_SUCH_UNIT:
                    return None
                raise
        return unitdetails.detail(unit, own)

    def figures(self, names: Sequence[str]) -> Mapping[str, UnitFigures]:
        """Read the figures of some loaded units; those that are gone are left out."""
        found = {}
        with self._connected() as bus:
            for name in names:
                try:
                    path = bus.call(MANAGER, "GetUnit", "s", (name,))[0]
                    own = self._own_properties(bus, path, name)
                except CallError:
                    continue
                found[name] = UnitFigures(
                    memory_bytes=_known(own.get("MemoryCurrent")),
                    next_elapse_seconds=unitdetails.next_elapse(own),
                )
        return found

    def verify(self, name: str, files: Mapping[str, str]) -> Sequence[str]:
        """Have systemd look for mistakes in a unit made of these files, on a copy."""
        return unitchecks.verify(self.run, name, files)

    def calendar(self, expression: str, *, times: int) -> CalendarFact:
        """Ask systemd what a calendar expression means."""
        return unitchecks.calendar(self.run, expression, times=times)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Bus]:
        if not self.user:
            with connect(self.bus_socket) as bus:
                yield bus
            return
        path, uid = manager_socket(self.user, self.users)
        with connect_direct(path, owner=uid) as bus:
            yield bus

    def follow(
        self, name: str, *, lines: int, after: str, stop: Waiting
    ) -> Iterator[JournalLine | None]:
        """Tell each line that a unit logs, and ``None`` while there is none."""
        if self.user:
            raise UnavailableError("the journal of a user's unit cannot be followed")
        argv = unitjournal.arguments(name, lines=lines, after=after)
        return unitjournal.parse(self.stream(RunProgram(argv=argv), stop))

    def _own_properties(self, bus: Bus, path: str, name: str) -> dict[str, Any]:
        interface = _INTERFACES.get(name.rpartition(".")[2])
        if interface is None:
            return {}
        return bus.properties(Address(bus_name=BUS_NAME, path=path, interface=interface))


def manager_socket(user: str, users: Path = Path("/run/user")) -> tuple[Path, int]:
    """Give the socket of a user's own systemd, and their number. Raises BusError.

    It is the one that lets root in, as the user's bus does not.
    """
    try:
        uid = pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError, UnicodeError) as error:
        raise BusError(f"there is no user {user} on this node") from error
    return users / str(uid) / "systemd" / "private", uid


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
        triggered_by=tuple(sorted(unit.get("TriggeredBy", ()))),
        stopped_with=tuple(sorted({*unit.get("BoundBy", ()), *unit.get("ConsistsOf", ())})),
    )


def _known(value: int | None) -> int | None:
    return None if value is None or value == _UNSET else value
