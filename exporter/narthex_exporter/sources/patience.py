"""Make calls that may never return, without ever waiting for one longer than allowed."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """How one call ended: a value, the error it raised, or neither when it did not return."""

    value: T | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def stuck(self) -> bool:
        """Tell whether the call was given up, or not made because an earlier one hangs."""
        return self.error is not None and isinstance(self.error, StuckError)


class StuckError(Exception):
    """A call did not return in time."""


@dataclass(slots=True)
class Patience(Generic[K, T]):
    """Make named calls one after the other in a thread that is left behind if one hangs.

    A thread that waits in the kernel cannot be cancelled. So a call that hangs keeps its thread,
    the rest goes on in a new one, and the same name is not called again before the old call
    returns: at most one thread a name waits, and at most ``hung_at_most`` in all. With so many
    no further call is made. In the usual case a run costs two wake-ups of a thread that is kept.
    """

    name: str
    hung_at_most: int = 16
    clock: Callable[[], float] = time.monotonic
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _hung: set[K] = field(default_factory=set, init=False)
    _jobs: "SimpleQueue[Callable[[], None] | None] | None" = field(default=None, init=False)

    def __del__(self) -> None:
        self._leave_worker()

    @property
    def hung(self) -> frozenset[K]:
        """Name the calls that have not returned yet."""
        with self._lock:
            return frozenset(self._hung)

    def run(
        self,
        calls: Mapping[K, Callable[[], T]],
        *,
        limit: Callable[[K], float],
        total_seconds: float,
    ) -> dict[K, Outcome[T]]:
        """Make each call; ``limit`` is what one may take, in seconds.

        Always answers for every name, after ``total_seconds`` and one turn of another run at the
        latest.
        """
        end = self.clock() + total_seconds
        if not self._turn.acquire(timeout=total_seconds):
            return dict.fromkeys(calls, _late("the turn before has not ended"))
        try:
            return self._run(calls, limit, end)
        finally:
            self._turn.release()

    def _run(
        self, calls: Mapping[K, Callable[[], T]], limit: Callable[[K], float], end: float
    ) -> dict[K, Outcome[T]]:
        known = self.hung
        done: dict[K, Outcome[T]] = {
            name: _late("it has not returned since an earlier call")
            for name in calls
            if name in known
        }
        todo = [name for name in calls if name not in known]
        while todo and self.clock() < end and len(self.hung) < self.hung_at_most:
            walk = _Walk(self, calls, todo)
            done |= walk.follow(limit, end)
            todo = [name for name in todo if name not in done]
        return done | dict.fromkeys(todo, _late("no time was left for it"))

    def _start(self, job: Callable[[], None]) -> None:
        """Have the worker do it; one is made where there is none, or it was left behind."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_work, args=(self._jobs,), name=self.name, daemon=True).start()
        self._jobs.put(job)

    def _leave_worker(self) -> None:
        """Let the worker end when it has done what it is at."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work(jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or what it holds would live until the next one comes


class _Walk(Generic[K, T]):
    """One thread's way along some calls."""

    def __init__(
        self, owner: Patience[K, T], calls: Mapping[K, Callable[[], T]], names: list[K]
    ) -> None:
        self.owner = owner
        self.calls = calls
        self.names = names
        self.done: dict[K, Outcome[T]] = {}
        self.at: tuple[K, float] = (names[0], owner.clock())
        self.left = False
        self.over = False
        # A lock that is released at the end: an Event would make three of them.
        self.running = threading.Lock()
        self.running.acquire()

    def follow(self, limit: Callable[[K], float], end: float) -> dict[K, Outcome[T]]:
        """Wait for the thread; leave it behind at the first call that takes too long."""
        owner = self.owner
        owner._start(self._walk)  # noqa: SLF001 - one class in two
        while True:
            name, since = self.at
            left = min(since + limit(name), end) - owner.clock()
            if self.running.acquire(timeout=max(0.0, left)):
                return self.done
            with owner._lock:  # noqa: SLF001
                if self.at == (name, since) and not self.over:
                    self.left = True
                    owner._hung.add(name)  # noqa: SLF001
                    owner._leave_worker()  # noqa: SLF001
                    late: Outcome[T] = _late("it did not return in time")
                    return self.done | {name: late}

    def _walk(self) -> None:
        owner = self.owner
        for position, name in enumerate(self.names):
            since = self.at[1]
            value, error = None, None
            try:
                value = self.calls[name]()
            except Exception as fault:  # noqa: BLE001 - the boundary: it costs its own call
                error = fault
            with owner._lock:  # noqa: SLF001
                if self.left:
                    owner._hung.discard(name)  # noqa: SLF001
                    return
                now = owner.clock()
                self.done[name] = Outcome(value=value, error=error, seconds=now - since)
                if position + 1 < len(self.names):
                    self.at = (self.names[position + 1], now)
                else:
                    self.over = True
                    self.running.release()


def _late(why: str) -> "Outcome[T]":
    return Outcome(error=StuckError(why))
