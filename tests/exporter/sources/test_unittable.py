"""What is asked of systemd again, and when; on a pretended bus. tests/lab asks the real one."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.sources.dbus import Address, BusError, CallError
from narthex_exporter.sources.unittable import (
    Connections,
    Details,
    Exit,
    NoSystemdError,
    Table,
    UnitTable,
)

NEVER = 2**64 - 1
HOUR = 3600 * 10**6


@dataclass
class FakeBus:
    """Answers from dictionaries as ``Bus`` would; notes what it was asked."""

    units: dict[str, tuple[str, str]]
    properties: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    def call(
        self,
        address: Address,  # noqa: ARG002 - as Bus has it
        method: str,  # noqa: ARG002
        *,
        timeout_seconds: float,  # noqa: ARG002
    ) -> tuple[list[tuple[Any, ...]]]:
        return ([
            (name, "", "loaded", active, sub, "", f"/{name}", 0, "", "/")
            for name, (active, sub) in self.units.items()
        ],)  # fmt: skip

    def get(self, address: Address, name: str, *, timeout_seconds: float) -> Any:  # noqa: ARG002
        key = f"{address.path[1:]} {name}"
        self.asked.append(key)
        if key not in self.properties:
            raise CallError("org.freedesktop.DBus.Error.UnknownProperty", name)
        return self.properties[key]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "run/systemd/units").mkdir(parents=True)
    (tmp_path / "run/dbus").mkdir(parents=True)
    return tmp_path


SERVICE = {
    "a.service ActiveEnterTimestamp": 1000 * 10**6,
    "a.service Type": "oneshot",
    "a.service NRestarts": 2,
    "a.service TasksMax": NEVER,
    "a.service ControlGroup": "/system.slice/a.service",
    "a.service ExecMainExitTimestamp": 900 * 10**6,
    "a.service Result": "success",
}
TIMER = {
    "a.timer Unit": "a.service",
    "a.timer LastTriggerUSec": 800 * 10**6,
    "a.timer NextElapseUSecRealtime": 5000 * 10**6,
    "a.timer NextElapseUSecMonotonic": NEVER,
}


class Watched:
    """A table on a pretended bus."""

    def __init__(self, root: Path, units: dict[str, tuple[str, str]], **more: Any) -> None:
        self.bus = FakeBus(units, dict(SERVICE | TIMER))
        self.table = UnitTable(root=root, **more)
        self.table._bus = self.bus  # type: ignore[assignment]  # it is asked in the same way

    def look(self) -> Table:
        self.bus.asked.clear()
        return self.table.look(lambda units: units)

    def asked(self, word: str = "a.service") -> int:
        self.look()
        return sum(word in each for each in self.bus.asked)


def test_details_are_told_once_read(root: Path) -> None:
    watched = Watched(root, {"a.service": ("active", "running")})
    wanted = Details(
        type="oneshot", started=1000.0, restarts=2, tasks_max=None,
        group="/system.slice/a.service", exit=Exit(at=900.0, success=True),
    )  # fmt: skip
    assert watched.look().details == {"a.service": wanted}
    assert watched.asked() == 0
    assert watched.look().details == {"a.service": wanted}


def test_another_state_is_a_reason_to_read_again(root: Path) -> None:
    watched = Watched(root, {"a.service": ("active", "running")})
    watched.look()
    watched.bus.units["a.service"] = ("failed", "failed")
    watched.bus.properties["a.service Result"] = "exit-code"
    found = watched.look().details["a.service"]
    assert found.exit == Exit(at=900.0, success=False)
    assert found.started == 0


def test_another_invocation_is_a_reason_too(root: Path) -> None:
    link = root / "run/systemd/units/invocation:a.service"
    link.symlink_to("0123")
    watched = Watched(root, {"a.service": ("active", "running")})
    watched.look()
    assert watched.asked() == 0
    link.unlink()
    link.symlink_to("4567")
    assert watched.asked() > 3


def test_everything_is_read_again_some_day(root: Path) -> None:
    watched = Watched(root, {"a.service": ("active", "running")})
    watched.look()
    asked = [watched.asked() for _ in range(45)]
    assert 1 <= sum(each > 0 for each in asked) <= 2


def test_a_timer_that_fired_is_a_reason_to_read_its_service_twice(root: Path) -> None:
    units = {"a.service": ("inactive", "dead"), "a.timer": ("active", "waiting")}
    watched = Watched(root, units)
    assert watched.look().details["a.timer"].last == 800.0
    assert watched.asked() == 0
    watched.bus.properties["a.timer LastTriggerUSec"] = 801 * 10**6
    assert [watched.asked() > 0 for _ in range(3)] == [True, True, False]
    assert watched.look().details["a.timer"].last == 801.0


def test_while_it_runs_again_the_last_exit_stays(root: Path) -> None:
    watched = Watched(root, {"a.service": ("inactive", "dead")})
    before = watched.look().details["a.service"].exit
    watched.bus.units["a.service"] = ("activating", "start")
    watched.bus.properties["a.service ExecMainExitTimestamp"] = 0
    assert watched.look().details["a.service"].exit == before


@pytest.mark.parametrize(
    ("realtime", "monotonic", "wanted"),
    [
        (NEVER, NEVER, None),
        (0, 0, None),
        (5000 * 10**6, NEVER, 5000.0),
        (NEVER, HOUR, 10_000.0 + 3600 - 100),
        (99_000 * 10**6, HOUR, 13_500.0),
        (5000 * 10**6, HOUR, 5000.0),
    ],
)
def test_the_next_run_is_the_earlier_of_both_clocks(
    root: Path, realtime: int, monotonic: int, wanted: float | None
) -> None:
    units = {"a.timer": ("active", "waiting")}
    watched = Watched(root, units, clock=lambda: 10_000.0, monotonic=lambda: 100.0)
    watched.bus.properties["a.timer NextElapseUSecRealtime"] = realtime
    watched.bus.properties["a.timer NextElapseUSecMonotonic"] = monotonic
    assert watched.look().details["a.timer"].next == wanted


def test_only_sockets_that_accept_are_asked_at_each_look(root: Path) -> None:
    watched = Watched(root, dict.fromkeys(("a.socket", "b.socket"), ("active", "listening")))
    for name, accepts in (("a", True), ("b", False)):
        counts = {"Accept": accepts, "NAccepted": 0, "NConnections": 0, "NRefused": 0}
        watched.bus.properties |= {f"{name}.socket {k}": value for k, value in counts.items()}
    watched.look()
    watched.bus.properties |= {"a.socket NAccepted": 7, "a.socket NConnections": 3}
    found = watched.look().details
    assert found["a.socket"].connections == Connections(accepted=7, current=3, refused=0)
    assert found["b.socket"].connections == Connections(accepted=0, current=0, refused=0)
    assert watched.asked("b.socket") == 0


def test_what_an_old_systemd_does_not_know_is_left_out(root: Path) -> None:
    units = dict.fromkeys(("a.service", "a.timer", "a.socket", "a.mount"), ("active", "x"))
    watched = Watched(root, units)
    watched.bus.properties.clear()
    found = watched.look().details
    assert found["a.service"] == Details()
    assert found["a.timer"] == Details()
    assert found["a.socket"] == Details()


def test_a_unit_that_is_gone_is_forgotten(root: Path) -> None:
    watched = Watched(root, {"a.service": ("active", "running"), "a.timer": ("active", "x")})
    watched.look()
    del watched.bus.units["a.service"]
    assert list(watched.look().details) == ["a.timer"]
    assert list(watched.table._kept) == ["a.timer"]


def test_without_systemd_or_a_bus_the_reason_is_told(tmp_path: Path, root: Path) -> None:
    with pytest.raises(NoSystemdError, match="the system bus is not running"):
        UnitTable(root=root).look(lambda units: units)
    with pytest.raises(NoSystemdError, match="systemd is not running"):
        UnitTable(root=tmp_path / "elsewhere").look(lambda units: units)


def silent(connection: socket.socket) -> None:
    """Accept, and never say anything."""


def mute_after_sign_in(connection: socket.socket) -> None:
    """Let the other side in, and then answer no call."""
    received = b""
    while b"BEGIN" not in received:
        received += connection.recv(1024)
        if received.endswith(b"\r\n") and b"BEGIN" not in received:
            connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")


def rude(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"REJECTED\r\n")


def garbled(connection: socket.socket) -> None:
    mute_after_sign_in(connection)
    connection.sendall(b"\xff" * 64)


def gone(connection: socket.socket) -> None:
    connection.close()


@contextlib.contextmanager
def listening(root: Path, behave: Any) -> Iterator[None]:
    """A bus at its usual place that behaves in some way, for each connection."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(root / "run/dbus/system_bus_socket"))
    server.listen()
    held = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                held.append(connection)
                with contextlib.suppress(OSError):
                    behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(2)
        for connection in held:
            connection.close()


@pytest.mark.parametrize("behave", [silent, mute_after_sign_in, rude, garbled, gone])
def test_a_bus_that_does_not_answer_is_given_up_in_time(root: Path, behave: Any) -> None:
    table = UnitTable(root=root, look_seconds=0.3)
    with listening(root, behave):
        for _ in range(2):
            since = time.monotonic()
            with pytest.raises(BusError):
                table.look(lambda units: units)
            assert time.monotonic() - since < 1.5
    assert table._bus is None


def test_half_an_answer_ends_the_connection(root: Path) -> None:
    watched = Watched(root, {"a.service": ("active", "running")})
    ticks = iter([0.0, 0.0, 0.1, 9.0])
    watched.table.monotonic = lambda: next(ticks)
    with pytest.raises(BusError, match="did not tell all"):
        watched.look()
    assert watched.bus.closed
