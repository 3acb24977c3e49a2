"""Be the terminal of one command in a container: bytes both ways, to whoever opened it.

When it closes, what the command started ends too: first SIGHUP, as for a terminal that is gone,
then SIGKILL, for its process and every one of its session. The engines have no call for that:
they leave an exec running whose connection is cut. A process that made a session of its own
(setsid) is not ended: it is the container's like any other, and ends with it.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, Protocol

from pydantic import ValidationError

from narthex_exporter.actions import containerexec as declared
from narthex_exporter.actions.containerexec import ExecParams
from narthex_exporter.actor import execs
from narthex_exporter.actor.audit import AuditError
from narthex_exporter.actor.engine import Engine, RateError
from narthex_exporter.actor.execs import Container, Exec
from narthex_exporter.actor.policy import PolicyError
from narthex_exporter.actor.runner import RunnerError
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.steps import Signal
from narthex_exporter.contract.tickets import Claims
from narthex_exporter.contract.wire import TerminalSize, strict_json
from narthex_exporter.errors import UnavailableError
from narthex_exporter.transport.slots import Slots
from narthex_exporter.transport.websocket import GOING_AWAY, NORMAL, POLICY, WebSocket
from narthex_exporter.transport.wires import Wire

log = logging.getLogger(__name__)

P = ParamSpec("P")
EXEC: Final = declared.execute
NAME: Final = EXEC.name
_CHUNK: Final = 32 * 1024
_HURRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many terminals there may be, and for how long. Times are seconds."""

    most: int = 8
    most_each: int = 4
    idle_seconds: float = 600.0
    life_seconds: float = 8 * 3600.0
    check_seconds: float = 15.0
    grace_seconds: float = 5.0
    resize_seconds: float = 0.2


class Sessions(Protocol):
    """Find the processes of a session; see ``sources.processes``."""

    def session(self, leader: int) -> Sequence[tuple[int, int]]:
        """List the session's processes, by number and start."""
        ...


@dataclass(slots=True, kw_only=True)
class Terminals:
    """The terminals of one actor."""

    engine: Engine
    sessions: Sessions
    bounds: Bounds = field(default_factory=Bounds)
    sockets: Sequence[Path] = execs.SOCKETS
    clock: Callable[[], float] = time.monotonic
    _slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        self._slots = Slots(self.bounds.most, self.bounds.most_each)

    def admit(self, params: ExecParams) -> Container:
        """Find the container that may be entered. Raises PolicyError and others."""
        self.engine.policy.judge_action(EXEC)
        # First, as an engine that hangs is waited for here alone.
        found = execs.find(params.container, sockets=self.sockets)
        # By its other name it is the same container: both must be allowed.
        for name in {params.container, found.name or params.container}:
            named = params.model_copy(update={"container": name})
            self.engine.policy.judge(EXEC, named, self.engine.facts)
        if found.root_by and NAME not in self.engine.policy.root_equivalent:
            raise PolicyError(
                f"a terminal in {found.name} equals root on this node: {found.root_by}",
                hint=f"its owner lists {NAME} under `root_equivalent` in the policy file",
            )
        return found

    @contextlib.contextmanager
    def place(self, user: str) -> Iterator["Place"]:
        """Hold a terminal's place, at least as long as the context. Raises RateError."""
        if not self._slots.enter(user):
            raise RateError(
                f"at most {self.bounds.most} terminals a node, {self.bounds.most_each} a user",
                hint="close one, then try again",
            )
        place = Place(lambda: self._slots.leave(user))
        try:
            yield place
        finally:
            place.leave_unless_kept()

    def open(self, container: Container, params: ExecParams, claims: Claims) -> Exec:
        """Write down who opens what, then start it. Raises AuditError, RefusedError and others."""
        who = {"sub": claims.sub, "sid": claims.sid, "op": claims.op, "jti": claims.jti}
        what = {
            "container": container.name,
            "container_id": container.id,
            "command": list(params.command),
            "reason": claims.rsn[:1000],
        }
        self.engine.audit.append("terminal.opened", act=NAME, **who, **what)
        try:
            return execs.start(container, params.command, columns=params.columns, rows=params.rows)
        except NarthexError as error:
            self.engine.audit.append("terminal.failed", op=claims.op, error=str(error)[:500])
            raise

    def serve(
        self,
        exec_: Exec,
        params: ExecParams,
        socket: WebSocket,
        claims: Claims,
        stopping: threading.Event,
    ) -> None:
        """Carry bytes until one side ends; afterwards nothing of it is left running."""
        session = Session(exec_, socket, self.bounds, self.clock, params.command)
        began = self.clock()
        start_ticks = self._start_ticks(exec_)
        try:
            session.carry(stopping, check=lambda: self._recheck(params))
        finally:
            exec_.sock.close()
            # A server that stops waits 5 s for us: nothing may be left when it is gone.
            grace = _HURRY_SECONDS if stopping.is_set() else self.bounds.grace_seconds
            left = self._end(exec_, start_ticks, grace)
            self._note_end(session, claims, seconds=self.clock() - began, left=left)
            socket.finish()

    def abandon(self, exec_: Exec) -> None:
        """End what was started for somebody who has gone."""
        exec_.sock.close()
        self._end(exec_, self._start_ticks(exec_), self.bounds.grace_seconds)

    def _recheck(self, params: ExecParams) -> str:
        try:
            self.engine.policy.judge(EXEC, params, self.engine.facts)
        except PolicyError:
            return "the node's policy forbids it now"
        return ""

    def _start_ticks(self, exec_: Exec) -> int | None:
        """Know the process again by its start; the engine still holds it, so it is the one."""
        if exec_.pid is None:
            return None
        ticks = self.engine.runner.start_ticks(exec_.pid)
        running, pid = execs.inspect(exec_.container.engine, exec_.id)
        return ticks if running and pid == exec_.pid else None

    def _end(self, exec_: Exec, start_ticks: int | None, grace_seconds: float) -> bool:
        """End what the command started; tell whether some of it may be left."""
        if exec_.pid is None or start_ticks is None:
            return self._runs(exec_)
        found = {(exec_.pid, start_ticks), *self._session(exec_)}
        deadline = self.clock() + grace_seconds
        for pid, ticks in found:
            self._signal(pid, ticks, "SIGHUP", 0.0)
        for pid, ticks in found:
            self._signal(pid, ticks, "SIGCONT", max(0.1, deadline - self.clock()))
        for pid, ticks in found | self._session(exec_):
            self._signal(pid, ticks, "SIGKILL", 1.0)
        return self._runs(exec_)

    def _session(self, exec_: Exec) -> set[tuple[int, int]]:
        """Find the rest of its session; never what is not in the container: numbers come again."""
        found = set()
        for pid, ticks in self.sessions.session(exec_.pid or 0):
            process = self.engine.facts.processes.get(pid)
            owner = process.owner_container if process is not None else ""
            if owner and exec_.container.id.startswith(owner):
                found.add((pid, ticks))
        return found

    def _signal(self, pid: int, start_ticks: int, name: str, wait_seconds: float) -> None:
        step = Signal(pid=pid, start_ticks=start_ticks, signal=name, wait_seconds=wait_seconds)
        try:
            self.engine.runner.execute(
                step, timeout_seconds=wait_seconds, cancelled=threading.Event()
            )
        except RunnerError as error:
            log.warning("terminal.unsignalled", extra={"pid": pid, "error": str(error)})

    def _runs(self, exec_: Exec) -> bool:
        try:
            return execs.inspect(exec_.container.engine, exec_.id)[0]
        except NarthexError:
            return True

    def _note_end(self, session: "Session", claims: Claims, *, seconds: float, left: bool) -> None:
        try:
            self.engine.audit.append(
                "terminal.closed",
                op=claims.op,
                sub=claims.sub,
                act=NAME,
                container=session.exec.container.name,
                command=list(session.command),
                seconds=round(seconds, 1),
                bytes_in=session.bytes_in,
                bytes_out=session.bytes_out,
                why=session.why,
                left_running=left,
            )
        except AuditError as error:
            log.warning("terminal.unrecorded", extra={"op": claims.op, "error": str(error)})


class Place:
    """A terminal's place, which whatever was given to ``keep`` gives back when it ends."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._kept = False

    def keep(self, work: Callable[P, None]) -> Callable[P, None]:
        """Let some work hold the place until its end; it is to run once."""
        self._kept = True

        def holding(*args: P.args, **more: P.kwargs) -> None:
            try:
                work(*args, **more)
            finally:
                self._leave()

        return holding

    def leave_unless_kept(self) -> None:
        """Give the place back where no work holds it."""
        if not self._kept:
            self._leave()


class Session:
    """One open terminal. ``why`` says how it ended, ``bytes_in`` what was typed."""

    def __init__(
        self,
        exec_: Exec,
        socket: WebSocket,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        command: Sequence[str] = (),
    ) -> None:
        self.exec = exec_
        self.command = command
        self.bytes_in = self.bytes_out = 0
        self.why = ""
        self._socket = socket
        self._screen = Wire(exec_.sock, first=exec_.first)
        self._bounds = bounds
        self._clock = clock
        self._typed = self._checked = self._resized = clock()
        self._size: TerminalSize | None = None

    def carry(self, stopping: threading.Event, *, check: Callable[[], str]) -> None:
        """Carry bytes both ways until one side, a bound or ``check`` ends it."""
        began = self._clock()
        while self._socket.closed is None:
            self._socket.wait(
                1.0,
                wires=((self._screen, self._socket.has_room),),
                reads=self._screen.has_room,
            )
            self._from_screen()
            self._from_person()
            why = "the actor stops" if stopping.is_set() else self._overdue(began, check)
            if why:
                code = GOING_AWAY if stopping.is_set() else POLICY
                self._socket.close(code, why)
        self.why = self._socket.closed.reason or f"code {self._socket.closed.code}"

    def _from_screen(self) -> None:
        if self._socket.has_room:
            data = self._screen.read()
            self.bytes_out += len(data)
            for at in range(0, len(data), _CHUNK):
                self._socket.send(data[at : at + _CHUNK])
        if self._screen.ended and self._socket.closed is None:
            self._socket.close(NORMAL, "the command has ended")

    def _from_person(self) -> None:
        for message in self._socket.messages() if self._screen.has_room else ():
            if isinstance(message, bytes):
                self.bytes_in += len(message)
                self._typed = self._clock()
                self._screen.put(message)
            else:
                self._size = self._read_size(message)
        if self._size is not None and self._due():
            with contextlib.suppress(UnavailableError):
                execs.resize(
                    self.exec.container.engine,
                    self.exec.id,
                    columns=self._size.columns,
                    rows=self._size.rows,
                )
            self._size, self._resized = None, self._clock()

    def _due(self) -> bool:
        return self._clock() - self._resized >= self._bounds.resize_seconds

    def _read_size(self, message: str) -> TerminalSize | None:
        try:
            return TerminalSize.model_validate(strict_json(message.encode()))
        except (ValidationError, ValueError):
            self._socket.close(POLICY, "a text message must be the terminal's size")
            return None

    def _overdue(self, began: float, check: Callable[[], str]) -> str:
        now = self._clock()
        if now - self._typed > self._bounds.idle_seconds:
            return "nothing was typed for too long"
        if now - began > self._bounds.life_seconds:
            return "it was open for too long"
        if now - self._checked >= self._bounds.check_seconds:
            self._checked = now
            return check()
        return ""
