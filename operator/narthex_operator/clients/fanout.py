"""Do the same for many nodes at once, so that none that is slow holds up another."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from narthex_operator.errors import OperatorError, UnreachableError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# Whoever takes longer no longer counts: its place is given to another thread.
PATIENCE_SECONDS: Final = 2.0
MOST_THREADS: Final = 512
_LOOK_SECONDS: Final = 0.25
# Work that heeds the deadline ends a moment behind it, and knows better what became of it.
_GRACE_SECONDS: Final = 0.5


def fan_out(
    items: Sequence[T], work: Callable[[T, float], R], *, parallel: int, seconds: float
) -> Iterator[tuple[T, R | OperatorError]]:
    """Give each item's result or error as it comes, and all within ``seconds``.

    ``work`` is told the item and the instant (monotonic) by which it has to be done. At most
    ``parallel`` are under way, not counting those that have taken more than PATIENCE_SECONDS.
    Begins when the first result is asked for; whoever stops asking stops what was not begun.
    """
    crew = _Crew(work=work, until=time.monotonic() + seconds, seconds=seconds)
    crew.waiting.extend(enumerate(items))
    missing = set(range(len(items)))
    try:
        while missing and time.monotonic() < crew.until + _GRACE_SECONDS:
            crew.man(parallel)
            try:
                index, result = crew.results.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            missing.discard(index)
            yield items[index], result
    finally:
        crew.waiting.clear()
    for index in sorted(missing):
        yield items[index], _late(seconds)


@dataclass(slots=True, kw_only=True)
class _Crew(Generic[T, R]):
    """Threads that take items until there are none."""

    work: Callable[[T, float], R]
    until: float
    seconds: float
    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    results: queue.SimpleQueue[tuple[int, R | OperatorError]] = field(
        default_factory=queue.SimpleQueue
    )
    # When each thread took the item that it is at.
    _busy: dict[int, float] = field(default_factory=dict)
    _threads: int = 0
    _allowed: int = 0
    _looked_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def man(self, parallel: int) -> None:
        """Start as many threads as are wanted now; looks only now and then."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        with self._lock:
            slow = sum(now - since > PATIENCE_SECONDS for since in self._busy.values())
            self._allowed = min(parallel + slow, MOST_THREADS)
            more = min(self._allowed - self._threads, len(self.waiting))
            self._threads += max(0, more)
        for _ in range(more):
            threading.Thread(target=self._serve, name="fan-out", daemon=True).start()

    def _serve(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                if not self.waiting or self._threads > self._allowed:
                    self._threads -= 1
                    self._busy.pop(me, None)
                    return
                index, item = self.waiting.popleft()
                self._busy[me] = time.monotonic()
            self.results.put((index, self._done(item)))

    def _done(self, item: T) -> R | OperatorError:
        if time.monotonic() >= self.until:
            return _late(self.seconds)
        try:
            return self.work(item, self.until)
        except OperatorError as error:
            return error
        except Exception:
            # The boundary of these threads: a mistake of ours costs one item its result.
            log.exception("fan-out.fault")
            return OperatorError("a fault of the operator", hint="see the operator's log")


def _late(seconds: float) -> UnreachableError:
    return UnreachableError(
        f"no answer: the {seconds:g} s for all nodes were over", hint="ask fewer at once, or again"
    )
