"""Start child processes, restart those that die, and stop them all."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.contract.errors import NarthexError

FIRST_DELAY_SECONDS: Final = 0.2
LONGEST_DELAY_SECONDS: Final = 10.0
HEALTHY_SECONDS: Final = 30.0
LOG_BYTES: Final = 16 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1


class PartError(NarthexError):
    """A part does not come up; carries the end of its log."""


class InterruptedStartError(NarthexError):
    """Somebody asked to stop before all was ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One program to keep running. ``ready`` returns an empty string, or what is still amiss."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 10.0


@dataclass(slots=True)
class _Child:
    part: Part
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = -1
    delay: float = FIRST_DELAY_SECONDS
    due: float = 0.0


class Supervisor:
    """Keep parts running. All methods belong to one thread.

    Children die with the supervisor (PR_SET_PDEATHSIG), so that a killed supervisor leaves no
    half of a product behind and the next start finds its ports free.
    """

    def __init__(
        self,
        *,
        changed: Callable[[], None] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._children: dict[str, _Child] = {}
        self._changed = changed
        self._stopped = stopped
        self._clock = clock
        self._sleep = sleep

    def add(self, part: Part) -> None:
        """Start a part and keep it running from now on."""
        child = _Child(part=part)
        self._children[part.name] = child
        self._start(child)

    def pid(self, name: str) -> int:
        """Tell a part's pid; 0 while it is not running."""
        child = self._children.get(name)
        alive = child is not None and child.process is not None and child.process.poll() is None
        return child.process.pid if alive and child and child.process else 0

    def restarts(self) -> dict[str, int]:
        """Tell how often each part was started anew."""
        return {name: child.restarts for name, child in self._children.items()}

    def tick(self) -> None:
        """Start anew what has died, each with a growing delay; keep logs bounded."""
        now = self._clock()
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                lived = now - child.started
                child.delay = FIRST_DELAY_SECONDS if lived > HEALTHY_SECONDS else child.delay
                child.due = now + child.delay
                child.delay = min(child.delay * 2, LONGEST_DELAY_SECONDS)
                child.process = None
                self._changed()
            if child.process is None and now >= child.due:
                self._start(child)
                self._changed()
            _bound(child.part.log)

    def wait_ready(self, names: Iterable[str], *, timeout_seconds: float) -> None:
        """Wait until parts are ready.

        Raises PartError with the end of a log, and InterruptedStartError.
        """
        deadline = self._clock() + timeout_seconds
        waiting = list(names)
        while waiting:
            if self._stopped():
                raise InterruptedStartError("stopped before all was ready")
            child = self._children[waiting[0]]
            amiss = child.part.ready()
            if not amiss and self.pid(child.part.name):
                waiting.pop(0)
                continue
            if self._clock() > deadline or child.restarts >= 3:  # noqa: PLR2004
                raise PartError(
                    f"{child.part.name} did not come up: {amiss or 'it keeps ending'}\n"
                    + _tail(child.part.log),
                    hint=f"its whole log is {child.part.log}",
                )
            self._sleep(0.05)
            self.tick()

    def stop(self) -> None:
        """Ask every part to end, last started first, and kill what does not."""
        for child in reversed(self._children.values()):
            if child.process is not None and child.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGTERM)
        for child in reversed(self._children.values()):
            if child.process is None:
                continue
            try:
                child.process.wait(timeout=child.part.stop_seconds)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.process = None
        self._children.clear()

    def _start(self, child: _Child) -> None:
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        try:
            with child.part.log.open("ab") as log:
                child.process = subprocess.Popen(  # noqa: S603 - argv is built by us
                    child.part.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread forks, before any other
                    env={**os.environ, **child.part.environment},
                )
        except OSError as error:
            if child.restarts < 0:
                raise PartError(f"cannot start {child.part.name}: {error}") from error
            child.due = self._clock() + LONGEST_DELAY_SECONDS
            return
        child.started = self._clock()
        child.restarts += 1


def _bound(log: Path) -> None:
    # Children append, so that a truncated file goes on at its start.
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            log.with_suffix(".log.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def _tail(log: Path, *, lines: int = 8) -> str:
    try:
        text = log.read_bytes()[-8192:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
