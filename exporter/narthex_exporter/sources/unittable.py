"""Keep a table of systemd's units and read again only what may have changed.

One call lists all units with their states. What else is told of a unit is a call a property, which
costs PID 1 and us, so it is kept until the listing shows another state or job, until systemd names
another invocation below /run/systemd/units, or until it is old. See org.freedesktop.systemd1(5).
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self
from zlib import crc32

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.dbus import Address, Bus, BusError, CallError, dial
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.systemd import BUS_NAME, MANAGER

_INTERFACE: Final = "org.freedesktop.systemd1."
# What systemd tells where it knows no number or no time.
_UNSET: Final = 2**64 - 1
# How long one look may take in all, and one call of it.
_LOOK_SECONDS: Final = 8.0
_CALL_SECONDS: Final = 3.0
# After so many looks to twice as many everything is read again: settings change with a reload.
_KEPT_LOOKS: Final = 20


class NoSystemdError(UnavailableError):
    """systemd does not run here, or nothing runs that could ask it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One line of systemd's list of loaded units; ``path`` is its object on the bus."""

    name: str
    load: str
    active: str
    sub: str
    path: str
    job: int

    @property
    def kind(self) -> str:
        """The type of unit, that is the end of its name."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """What systemd says of itself."""

    version: str
    virtualization: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a service last ended, and when, in unixtime."""

    at: float
    success: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What a socket that starts a service a connection has counted."""

    accepted: int
    current: int
    refused: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the list does not tell. Times are unixtime, 0 where it has not happened.

    ``type`` is a service's or a mount's, ``starts`` the unit that a timer starts, ``group`` the
    control group; ``next`` is None while a timer waits for nothing.
    """

    type: str = ""
    started: float = 0.0
    restarts: int | None = None
    tasks_max: int | None = None
    group: str = ""
    exit: Exit | None = None
    accepts: bool = False
    connections: Connections | None = None
    starts: str = ""
    last: float | None = None
    next: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The units at one moment. ``units`` are all; those that were chosen have ``details``."""

    manager: Manager
    units: Sequence[Unit]
    details: dict[str, Details]


@dataclass(slots=True)
class _Kept:
    """Details, the signs that they were read under, and the look that reads them again."""

    signs: tuple[Any, ...]
    due: int
    details: Details


@dataclass(slots=True)
class UnitTable:
    """The units of the machine at ``root``, over one connection; for one thread at a time."""

    root: Path = Path("/")
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    look_seconds: float = _LOOK_SECONDS
    calls: int = field(default=0, init=False)
    _bus: Bus | None = field(default=None, init=False)
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False)
    # Units whose timers fired: a short run between two looks leaves no other sign.
    _stirred: frozenset[str] = field(default=frozenset(), init=False)
    _turn: int = field(default=0, init=False)
    _end: float = field(default=0.0, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; the first look connects."""
        return cls(root=paths.root)

    def look(self, choose: Callable[[Sequence[Unit]], Iterable[Unit]]) -> Table:
        """List all units, and tell the details of those that ``choose`` gives.

        Raises NoSystemdError, BusError and CallError.
        """
        self._end = self.monotonic() + self.look_seconds
        try:
            bus = self._connected()
            units = self._list(bus)
            manager = self._manager(bus)
            details = self._details(bus, list(choose(units)))
        except BaseException:
            # Half an answer may be under way on it.
            self.close()
            raise
        return Table(manager=manager, units=units, details=details)

    def close(self) -> None:
        """End the connection; the next look makes another."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def _connected(self) -> Bus:
        # See sd_booted(3).
        if not (self.root / "run/systemd/system").is_dir():
            raise NoSystemdError("systemd is not running")
        if self._bus is None:
            socket = self.root / "run/dbus/system_bus_socket"
            if not socket.exists():
                raise NoSystemdError("the system bus is not running")
            self._bus = dial(socket, timeout_seconds=self._patience())
        return self._bus

    def _list(self, bus: Bus) -> list[Unit]:
        self.calls += 1
        rows = bus.call(MANAGER, "ListUnits", timeout_seconds=self._patience())[0]
        return [
            Unit(name, load, active, sub, path, job)
            for name, _, load, active, sub, _, path, job, *_ in rows
        ]

    def _manager(self, bus: Bus) -> Manager:
        def read(name: str) -> str:
            return str(self._get(bus, MANAGER.path, "Manager", name) or "")

        return Manager(
            version=read("Version"), virtualization=read("Virtualization"),
            state=read("SystemState"),
        )  # fmt: skip

    def _details(self, bus: Bus, units: list[Unit]) -> dict[str, Details]:
        self._turn += 1
        names = {unit.name for unit in units}
        self._kept = {name: kept for name, kept in self._kept.items() if name in names}
        before = self._stirred
        stirred = set()
        # Timers first: they tell of which services there is news.
        for unit in sorted(units, key=lambda each: each.kind != "timer"):
            kept = self._kept.get(unit.name)
            signs = self._signs(bus, unit)
            fresh = (
                kept is not None
                and kept.signs == signs
                and kept.due > self._turn
                and unit.name not in stirred
                and unit.name not in before
            )
            if kept is None or not fresh:
                old = None if kept is None else kept.details
                kept = self._kept[unit.name] = _Kept(
                    signs, self._due(unit), self._read(bus, unit, old)
                )
                if unit.kind == "timer" and old is not None and kept.details.last != old.last:
                    stirred.add(kept.details.starts)
            elif kept.details.accepts:
                connections = self._connections(bus, unit)
                kept.details = replace(kept.details, connections=connections)
        # It may still run when it is first read, and so once more.
        self._stirred = frozenset(stirred)
        return {unit.name: self._kept[unit.name].details for unit in units}

    def _due(self, unit: Unit) -> int:
        """Spread the reading of what was first read all at once."""
        return self._turn + _KEPT_LOOKS + crc32(unit.name.encode()) % _KEPT_LOOKS

    def _signs(self, bus: Bus, unit: Unit) -> tuple[Any, ...]:
        news: Any = ""
        if unit.kind == "timer":
            news = self._get(bus, unit.path, "Timer", "LastTriggerUSec")
        elif unit.kind == "service" and unit.active != "inactive":
            with contextlib.suppress(OSError, ValueError):
                news = os.readlink(  # noqa: PTH115 - for each service at each look
                    f"{self.root}/run/systemd/units/invocation:{unit.name}"
                )
        return (unit.load, unit.active, unit.sub, unit.job, unit.path, news)

    def _read(self, bus: Bus, unit: Unit, old: Details | None) -> Details:
        started = 0.0
        if unit.active == "active":
            started = _seconds(self._get(bus, unit.path, "Unit", "ActiveEnterTimestamp")) or 0.0
        match unit.kind:
            case "service":
                return self._service(bus, unit, started, old)
            case "timer":
                return self._timer(bus, unit, started)
            case "socket":
                accepts = bool(self._get(bus, unit.path, "Socket", "Accept"))
                return Details(
                    started=started, accepts=accepts, connections=self._connections(bus, unit)
                )
            case "mount":
                kind = self._get(bus, unit.path, "Mount", "Type")
                return Details(started=started, type=str(kind or ""))
            case "scope" | "slice":
                group = self._get(bus, unit.path, unit.kind.title(), "ControlGroup")
                return Details(started=started, group=str(group or ""))
            case _:
                return Details(started=started)

    def _service(self, bus: Bus, unit: Unit, started: float, old: Details | None) -> Details:
        def read(name: str) -> Any:
            return self._get(bus, unit.path, "Service", name)

        ended = _seconds(read("ExecMainExitTimestamp"))
        if not ended and unit.active == "failed":
            # What comes before the main process failed, so that this never ran.
            ended = _seconds(self._get(bus, unit.path, "Unit", "InactiveEnterTimestamp"))
        # While it runs again there is no time here: then the last end is as it was.
        last = old.exit if old is not None else None
        if ended:
            last = Exit(at=ended, success=read("Result") == "success")
        return Details(
            started=started,
            type=str(read("Type") or ""),
            restarts=read("NRestarts"),
            tasks_max=_known(read("TasksMax")),
            group=str(read("ControlGroup") or ""),
            exit=last,
        )

    def _timer(self, bus: Bus, unit: Unit, started: float) -> Details:
        def read(name: str) -> Any:
            return self._get(bus, unit.path, "Timer", name)

        due = []
        if at := _seconds(read("NextElapseUSecRealtime")):
            due.append(at)
        if since_boot := _seconds(read("NextElapseUSecMonotonic")):
            # As unixtime, to a tenth of a second: what is left of it is our own waiting.
            due.append(round(self.clock() + since_boot - self.monotonic(), 1))
        return Details(
            started=started,
            starts=str(read("Unit") or ""),
            last=_seconds(read("LastTriggerUSec")),
            next=min(due) if due else None,
        )

    def _connections(self, bus: Bus, unit: Unit) -> Connections | None:
        def read(name: str) -> Any:
            return self._get(bus, unit.path, "Socket", name)

        accepted, current = read("NAccepted"), read("NConnections")
        if accepted is None or current is None:
            return None
        return Connections(accepted=accepted, current=current, refused=read("NRefused"))

    def _get(self, bus: Bus, path: str, interface: str, name: str) -> Any:
        """Read a property; None where this systemd has no such, or the unit is gone by now."""
        address = Address(bus_name=BUS_NAME, path=path, interface=_INTERFACE + interface)
        self.calls += 1
        try:
            return bus.get(address, name, timeout_seconds=self._patience())
        except CallError:
            return None

    def _patience(self) -> float:
        left = self._end - self.monotonic()
        if left <= 0:
            raise BusError(f"systemd did not tell all in {self.look_seconds:g} s")
        return min(left, _CALL_SECONDS)


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None or microseconds == _UNSET else microseconds / 1e6


def _known(value: int | None) -> int | None:
    return None if value is None or value == _UNSET else value
