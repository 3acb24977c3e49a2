"""Start and stop programs of supervisord, and wait until they are."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from narthex_exporter.actor.runner import RunnerError
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.steps import SupervisorCall
from narthex_exporter.contract.wire import RunState
from narthex_exporter.sources.supervisord import FaultError, Supervisord

_CALLS: Final = {
    "start": ("supervisor.startProcess",),
    "stop": ("supervisor.stopProcess",),
    "restart": ("supervisor.stopProcess", "supervisor.startProcess"),
}
_ALREADY_STARTED: Final = 60  # Faults of supervisor.xmlrpc
_NOT_RUNNING: Final = 70
_TICK_SECONDS: Final = 0.1
_UP: Final = frozenset({"RUNNING"})
_DOWN: Final = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisordCaller:
    """Carry out steps on supervisord."""

    supervisord: Supervisord
    clock: Callable[[], float] = time.monotonic

    def call(
        self, step: SupervisorCall, *, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        """Call without waiting, then look until the program is as was asked."""
        methods = _CALLS.get(step.operation)
        if methods is None:
            raise RunnerError(f"{step.operation} is not a call that may be made")
        deadline = self.clock() + timeout_seconds
        try:
            for method in methods:
                ends = _UP | _DOWN if method.endswith("startProcess") else _DOWN
                self._ask(method, step.program)
                state = self._wait(step.program, ends, deadline, cancelled)
                if state is None:
                    over = RunState.CANCELLED if cancelled.is_set() else RunState.TIMED_OUT
                    return over, 1, "not waited for any longer; what was begun may go on"
        except NarthexError as error:
            return RunState.FAILED, 1, str(error)
        if step.operation != "stop" and state not in _UP:
            return RunState.FAILED, 1, f"{step.program} is {state} now"
        return RunState.SUCCEEDED, 0, f"{step.program} is {state} now"

    def _ask(self, method: str, program: str) -> None:
        try:
            self.supervisord.call(method, program, False)
        except FaultError as fault:
            if fault.code not in {_ALREADY_STARTED, _NOT_RUNNING}:
                raise

    def _wait(
        self, program: str, ends: frozenset[str], deadline: float, cancelled: threading.Event
    ) -> str | None:
        while self.clock() < deadline and not cancelled.is_set():
            found = next((one for one in self.supervisord.list() if one.name == program), None)
            if found is None or found.state in ends:
                return "gone" if found is None else found.state
            cancelled.wait(_TICK_SECONDS)
        return None
