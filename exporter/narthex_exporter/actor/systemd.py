"""Call systemd over D-Bus and wait for the job that the call makes."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from narthex_exporter.actor.runner import RunnerError
from narthex_exporter.contract.steps import DBusCall
from narthex_exporter.contract.wire import RunState
from narthex_exporter.sources.dbus import (
    SYSTEM_BUS,
    Bus,
    BusError,
    CallError,
    connect,
    connect_direct,
)
from narthex_exporter.sources.systemd import MANAGER, manager_socket

_TICK_SECONDS: Final = 0.2

# What may be called at all, and how its arguments are typed. See org.freedesktop.systemd1(5).
_SIGNATURES: Final = {
    "DisableUnitFiles": "asb",
    "EnableUnitFiles": "asbb",
    "MaskUnitFiles": "asbb",
    "Reload": "",
    "ReloadUnit": "ss",
    "ResetFailedUnit": "s",
    "RestartUnit": "ss",
    "StartUnit": "ss",
    "StopUnit": "ss",
    "UnmaskUnitFiles": "asb",
}
_JOBS: Final = frozenset({"ReloadUnit", "RestartUnit", "StartUnit", "StopUnit"})
_CHANGES: Final = frozenset(
    {"DisableUnitFiles", "EnableUnitFiles", "MaskUnitFiles", "UnmaskUnitFiles"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdCaller:
    """Carry out D-Bus steps on systemd's manager, or on a user's."""

    bus_socket: Path = SYSTEM_BUS
    users: Path = Path("/run/user")
    clock: Callable[[], float] = time.monotonic

    def call(
        self, step: DBusCall, *, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        """Call, and wait for the job if one is made. Returns state, code and what happened."""
        signature = _SIGNATURES.get(step.method)
        service, _, user = step.service.partition(":")
        if service != "systemd" or step.service.endswith(":") or signature is None:
            raise RunnerError(f"{step.service}: {step.method} is not a call that may be made")
        body = tuple(list(arg) if isinstance(arg, tuple) else arg for arg in step.args)
        deadline = self.clock() + timeout_seconds
        try:
            with self._connected(user) as bus:
                if step.method in _JOBS:
                    return self._job(
                        bus, (step.method, signature, body), deadline=deadline, cancelled=cancelled
                    )
                reply = bus.call(
                    MANAGER, step.method, signature, body, timeout_seconds=timeout_seconds
                )
        except (CallError, BusError) as error:
            return RunState.FAILED, 1, str(error)
        return RunState.SUCCEEDED, 0, _told(step.method, reply)

    @contextlib.contextmanager
    def _connected(self, user: str) -> Iterator[Bus]:
        if not user:
            with connect(self.bus_socket) as bus:
                yield bus
            return
        path, uid = manager_socket(user, self.users)
        with connect_direct(path, owner=uid) as bus:
            yield bus

    def _job(
        self,
        bus: Bus,
        asked: tuple[str, str, tuple[Any, ...]],
        *,
        deadline: float,
        cancelled: threading.Event,
    ) -> tuple[RunState, int, str]:
        bus.call(MANAGER, "Subscribe")
        with bus.signals(MANAGER, "JobRemoved") as removed:
            job = bus.call(MANAGER, *asked, timeout_seconds=deadline - self.clock())[0]
            result = self._wait(bus, removed, job, deadline, cancelled)
            if result is None:
                state = RunState.CANCELLED if cancelled.is_set() else RunState.TIMED_OUT
                return state, 1, self._give_up(bus, job)
        if result in {"done", "skipped"}:
            return RunState.SUCCEEDED, 0, f"job {result}"
        return RunState.FAILED, 1, f"systemd's job ended with: {result}"

    def _wait(
        self,
        bus: Bus,
        removed: deque[Any],
        job: str,
        deadline: float,
        cancelled: threading.Event,
    ) -> str | None:
        while self.clock() < deadline and not cancelled.is_set():
            try:
                _, path, _, result = bus.next_signal(removed, timeout_seconds=_TICK_SECONDS)
            except TimeoutError:
                continue
            if path == job:
                return str(result)
        return None

    def _give_up(self, bus: Bus, job: str) -> str:
        try:
            bus.call(MANAGER, "CancelJob", "u", (int(job.rpartition("/")[2]),))
        except CallError as error:
            return f"not waited for any longer; systemd's job goes on: {error}"
        return "systemd's job was cancelled; what it had begun may go on"


def _told(method: str, reply: tuple[Any, ...]) -> str:
    if method not in _CHANGES:
        return "done"
    changes = [f"{kind} {file}" for kind, file, _ in reply[-1]]
    return "\n".join(changes) or "nothing to change"
