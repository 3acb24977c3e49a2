"""Carry out steps: the only module of the actor that changes anything."""

import contextlib
import errno
import os
import secrets
import selectors
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from narthex_exporter.actor.exits import how_it_ended
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.facts import Waiting
from narthex_exporter.contract.steps import (
    Confirm,
    DBusCall,
    EngineCall,
    Guard,
    Outcome,
    RemoveFile,
    RunProgram,
    SetPriority,
    Signal,
    Step,
    SupervisorCall,
    WriteFile,
)
from narthex_exporter.contract.wire import RunState
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.text import clean_block

_TICK_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 2.0
_KEPT_BYTES: Final = 1 << 20
_DIRECTORIES: Final = (Path("/usr/sbin"), Path("/usr/bin"), Path("/sbin"), Path("/bin"))
# So often, and so much of it, is output told while a program runs.
_PROGRESS_SECONDS: Final = 0.5
_PROGRESS_BYTES: Final = 8192
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class RunnerError(NarthexError):
    """A step cannot be carried out; it was not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a step ended: succeeded, failed, timed out or cancelled."""

    state: RunState
    outcome: Outcome
    truncated: bool = False


Progress = Callable[[str], None]


def _untold(_text: str) -> None:
    """Tell nobody."""


class EngineCaller(Protocol):
    """Carry out calls of container engines; see ``actor/engines.py``."""

    def call(
        self,
        step: EngineCall,
        *,
        timeout_seconds: float,
        cancelled: threading.Event,
        progress: Progress,
    ) -> tuple[RunState, int, str]:
        """Call, telling what happens meanwhile. Returns state, code and what happened."""
        ...


class Caller(Protocol):
    """Carry out D-Bus calls; see ``actor/systemd.py``."""

    def call(
        self, step: DBusCall, *, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        """Call, and wait for the job if one is made. Returns state, code and what happened."""
        ...


class SupervisorCaller(Protocol):
    """Carry out calls of supervisord; see ``actor/supervisord.py``."""

    def call(
        self, step: SupervisorCall, *, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        """Call, and wait for what comes of it. Returns state, code and what happened."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Carry out steps. ``start_ticks`` tells when a process started, to know a reused pid."""

    start_ticks: Callable[[int], int | None]
    dbus: Caller
    engines: EngineCaller | None = None
    supervisor: SupervisorCaller | None = None
    directories: tuple[Path, ...] = _DIRECTORIES
    owner_uid: int = 0
    kept_bytes: int = _KEPT_BYTES
    clock: Callable[[], float] = time.monotonic

    def execute(
        self,
        step: Step,
        *,
        timeout_seconds: float,
        cancelled: threading.Event,
        progress: Progress = _untold,
    ) -> Done:
        """Carry one step out, for at most ``timeout_seconds``. Raises RunnerError.

        ``progress`` is told the newest of a long step's output now and then.
        """
        began = self.clock()
        truncated = False
        match step:
            case RunProgram():
                limit = min(step.timeout_seconds, timeout_seconds)
                state, code, output, truncated = self._program(step, limit, cancelled, progress)
            case Signal():
                state, code, output = self._signal(step, timeout_seconds, cancelled)
            case SetPriority():
                state, code, output = self._set_priority(step)
            case WriteFile():
                state, code, output = self._write(step)
            case RemoveFile():
                state, code, output = self._remove(step)
            case EngineCall():
                limit = min(step.timeout_seconds, timeout_seconds)
                state, code, output = self._engine(step, limit, cancelled, progress)
            case SupervisorCall():
                limit = min(step.timeout_seconds, timeout_seconds)
                state, code, output = self._supervisor(step, limit, cancelled)
            case Guard() | Confirm():
                # The execution's own: they are about the run, not about the machine.
                raise RunnerError(f"{step.kind} is not a step to run by itself")
            case DBusCall():
                limit = min(step.timeout_seconds, timeout_seconds)
                state, code, output = self.dbus.call(
                    step, timeout_seconds=limit, cancelled=cancelled
                )
        outcome = Outcome(code=code, output=output, duration_seconds=self.clock() - began)
        return Done(state=state, outcome=outcome, truncated=truncated)

    def read(self, step: RunProgram) -> Outcome:
        """Run a program that only reads, for queries. Its failure is an outcome, not an error."""
        try:
            return self.execute(
                step, timeout_seconds=step.timeout_seconds, cancelled=threading.Event()
            ).outcome
        except RunnerError as error:
            return Outcome(code=127, output=str(error))

    def stream(self, step: RunProgram, stop: Waiting) -> Iterator[bytes]:
        """Run a program that only reads, and give its output as it comes: ``b""`` while none does.

        The program ends when nobody listens any more, or when the iterator is closed. Raises
        UnavailableError where it ended by itself, badly.
        """
        with self._start(step) as (process, pipe):
            try:
                os.set_blocking(pipe.fileno(), False)
                while not stop.readable(pipe.fileno(), _TICK_SECONDS):
                    chunk = _some(pipe)
                    if chunk == b"":
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            process.wait(_GRACE_SECONDS)
                        break
                    yield chunk or b""
                else:
                    return
            finally:
                _end_group(process)
        if process.returncode > 0:
            raise UnavailableError(
                f"{step.argv[0]} ended with status {process.returncode}",
                hint=f"try it on the node: {step.describe()}",
            )

    def resolve(self, name: str) -> Path:
        """Find a program in the fixed directories, and refuse one that others may write."""
        if not name or "/" in name:
            raise RunnerError(f"{name!r} is not the bare name of a program")
        for directory in self.directories:
            with contextlib.suppress(OSError):
                path = (directory / name).resolve(strict=True)
                self._check_program(path)
                return path
        raise RunnerError(f"there is no program {name} on this node", hint="install its package")

    def _check_program(self, path: Path) -> None:
        for one in (path, path.parent):
            status = one.stat()
            if status.st_uid != self.owner_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise RunnerError(
                    f"{one} may be written by others than root, so it is not run",
                    hint=f"see: ls -ld {one}",
                )

    def _engine(
        self,
        step: EngineCall,
        timeout_seconds: float,
        cancelled: threading.Event,
        progress: Progress,
    ) -> tuple[RunState, int, str]:
        if self.engines is None:
            raise RunnerError("this actor was built without container engines")
        return self.engines.call(
            step, timeout_seconds=timeout_seconds, cancelled=cancelled, progress=progress
        )

    def _supervisor(
        self, step: SupervisorCall, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        if self.supervisor is None:
            raise RunnerError("this actor was built without supervisord")
        return self.supervisor.call(step, timeout_seconds=timeout_seconds, cancelled=cancelled)

    def _program(
        self,
        step: RunProgram,
        timeout_seconds: float,
        cancelled: threading.Event,
        progress: Progress,
    ) -> tuple[RunState, int, str, bool]:
        kept = HeadAndTail(self.kept_bytes)
        with self._start(step) as (process, pipe):
            telling = _Telling(kept, progress, self.clock)
            state = self._watch(process, pipe, telling, timeout_seconds, cancelled)
            code = process.wait()
        if state is RunState.RUNNING:
            state = RunState.SUCCEEDED if code == 0 else RunState.FAILED
        return state, code, clean_block(kept.value()), kept.truncated

    @contextlib.contextmanager
    def _start(self, step: RunProgram) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
        path = self.resolve(step.argv[0])
        with _input(step.stdin) as stdin:
            try:
                process = subprocess.Popen(  # noqa: S603 - a list, from a declared plan, no shell
                    [step.argv[0], *step.argv[1:]],
                    executable=path,
                    env=_ENVIRONMENT,
                    cwd="/",
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise RunnerError(f"cannot start {path}: {error}") from error
        with process:
            if process.stdout is None:  # it was asked for above
                raise RunnerError(f"{path} has no output to read")
            yield process, process.stdout

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        pipe: IO[bytes],
        telling: "_Telling",
        timeout_seconds: float,
        cancelled: threading.Event,
    ) -> RunState:
        """Read until the program ends; RUNNING then means that nobody stopped it."""
        deadline, kept = self.clock() + timeout_seconds, telling.kept
        os.set_blocking(pipe.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while process.poll() is None:
                if cancelled.is_set() or self.clock() > deadline:
                    _end_group(process)
                    _drain(pipe, kept)
                    return RunState.CANCELLED if cancelled.is_set() else RunState.TIMED_OUT
                if selector.select(_TICK_SECONDS) and not _drain(pipe, kept):
                    # It closed its output: only its end is left to wait for.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_TICK_SECONDS)
                telling.tell()
        # A daemon that it left behind may hold the pipe: take what is there, wait for no more.
        _drain(pipe, kept)
        return RunState.RUNNING

    def _signal(
        self, step: Signal, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        number = signal.Signals[step.signal]
        with self._held(step.pid, step.start_ticks) as descriptor:
            if descriptor is None:
                return RunState.FAILED, 1, f"process {step.pid} was gone before the signal"
            began = self.clock()
            try:
                signal.pidfd_send_signal(descriptor, number)
            except OSError as error:
                return RunState.FAILED, 1, f"cannot signal process {step.pid}: {error.strerror}"
            if not step.wait_seconds:
                return RunState.SUCCEEDED, 0, f"{step.signal} was sent"
            limit = min(step.wait_seconds, timeout_seconds)
            while self.clock() - began < limit:
                if _ended(descriptor, _TICK_SECONDS):
                    seconds = self.clock() - began
                    how = how_it_ended(descriptor, step.pid) or f"after {step.signal}"
                    return RunState.SUCCEEDED, 0, f"exited in {seconds:.1f} s, {how}"
                if cancelled.is_set():
                    return RunState.CANCELLED, 1, f"{step.signal} was sent; not waited for"
        return RunState.FAILED, 1, f"{step.signal} was sent; still alive after {limit:g} s"

    def _set_priority(self, step: SetPriority) -> tuple[RunState, int, str]:
        with self._held(step.pid, step.start_ticks) as descriptor:
            if descriptor is None:
                return RunState.FAILED, 1, f"process {step.pid} was gone before"
            try:
                os.setpriority(os.PRIO_PROCESS, step.pid, step.nice)
            except OSError as error:
                return RunState.FAILED, 1, f"cannot renice process {step.pid}: {error.strerror}"
        return RunState.SUCCEEDED, 0, f"nice value is {step.nice}"

    @contextlib.contextmanager
    def _held(self, pid: int, start_ticks: int) -> Iterator[int | None]:
        """Hold exactly the process that was meant; ``None`` when it is gone."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in {errno.ESRCH, errno.EINVAL}:
                raise RunnerError(f"cannot hold process {pid}: {error.strerror}") from error
            yield None
            return
        try:
            # The number is held now, so what it means can no longer change.
            yield descriptor if self.start_ticks(pid) == start_ticks else None
        finally:
            os.close(descriptor)

    def _write(self, step: WriteFile) -> tuple[RunState, int, str]:
        path = Path(step.path)
        try:
            if not _is_still(path, step.before):
                return RunState.FAILED, 1, f"{path} is not what it was when this was planned"
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_file(path, step.content.encode(), mode=step.mode)
        except OSError as error:
            return RunState.FAILED, 1, f"cannot write {path}: {error.strerror}"
        return RunState.SUCCEEDED, 0, "written"

    def _remove(self, step: RemoveFile) -> tuple[RunState, int, str]:
        path = Path(step.path)
        try:
            if not _is_still(path, step.before):
                return RunState.FAILED, 1, f"{path} is not what it was when this was planned"
            path.unlink()
            sync_directory(path.parent)
        except OSError as error:
            return RunState.FAILED, 1, f"cannot remove {path}: {error.strerror}"
        return RunState.SUCCEEDED, 0, "removed"


def detached(argv: tuple[str, ...]) -> None:
    """Start a program of ours that outlives us, where no systemd can keep it. Raises RunnerError.

    Its end is waited for by a thread: a zombie would look alive to whoever asks for its pid.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            argv,
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise RunnerError(f"cannot start {argv[0]}: {error.strerror}") from error
    threading.Thread(target=process.wait, name="reap", daemon=True).start()


@dataclass(slots=True)
class _Telling:
    """Tell the newest output, seldom, and only where there is some."""

    kept: "HeadAndTail"
    progress: Progress
    clock: Callable[[], float]
    _told: int = 0
    _next: float = 0.0

    def tell(self) -> None:
        now = self.clock()
        if self.kept.size == self._told or now < self._next:
            return
        self._told, self._next = self.kept.size, now + _PROGRESS_SECONDS
        self.progress(clean_block(self.kept.newest(_PROGRESS_BYTES)))


@contextlib.contextmanager
def _input(text: str) -> Iterator[int]:
    """Give a descriptor to read ``text`` from, that no unread rest of it can block."""
    if not text:
        yield subprocess.DEVNULL
        return
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_still(path: Path, before: str | None) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return before is None
    return before is not None and content == before.encode()


@dataclass(slots=True)
class HeadAndTail:
    """Keep the first and the last half of ``limit`` bytes."""

    limit: int
    truncated: bool = field(default=False, init=False)
    size: int = field(default=0, init=False)
    _head: bytearray = field(default_factory=bytearray, init=False)
    _tail: bytearray = field(default_factory=bytearray, init=False)

    def add(self, chunk: bytes) -> None:
        """Take what came next."""
        self.size += len(chunk)
        room = self.limit // 2 - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[max(0, room) :]
        excess = len(self._tail) - self.limit // 2
        if excess > 0:
            self.truncated = True
            del self._tail[:excess]

    def newest(self, count: int) -> bytes:
        """Give the last bytes that came."""
        tail = bytes(self._tail[-count:])
        return tail if len(tail) == count else (bytes(self._head) + tail)[-count:]

    def value(self) -> bytes:
        """Give what was kept, saying where something was left out."""
        gap = b"\n[... left out ...]\n" if self.truncated else b""
        return bytes(self._head) + gap + bytes(self._tail)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file at once or not at all; owner and mode of an old one stay. Raises OSError."""
    try:
        old = path.lstat()
    except FileNotFoundError:
        owner = (os.geteuid(), os.getegid())
    else:
        if not stat.S_ISREG(old.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        owner, mode = (old.st_uid, old.st_gid), stat.S_IMODE(old.st_mode)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename or a new file in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drain(pipe: IO[bytes], kept: HeadAndTail) -> bool:
    """Read what is there; tell whether more may come."""
    while True:
        try:
            chunk = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        kept.add(chunk)


def _some(pipe: IO[bytes]) -> bytes | None:
    """Read what is there: ``None`` where nothing is, ``b""`` at the end."""
    try:
        return os.read(pipe.fileno(), 65536)
    except BlockingIOError:
        return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # Twice, whether or not the leader ends at once: what it left in its group goes too.
    for number, wait_seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_seconds)


def _ended(descriptor: int, timeout_seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(timeout_seconds))
