"""Bound how often something is written down, and count what is left out."""

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Throttle:
    """Admit at most ``count`` in any ``seconds``."""

    count: int = 60
    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _admitted: collections.deque[float] = field(default_factory=collections.deque, init=False)
    _left_out: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def admit(self) -> int | None:
        """Tell how many were left out before this one; ``None`` where this one is too."""
        with self._lock:
            now = self.clock()
            while self._admitted and self._admitted[0] <= now - self.seconds:
                self._admitted.popleft()
            if len(self._admitted) >= self.count:
                self._left_out += 1
                return None
            self._admitted.append(now)
            left_out, self._left_out = self._left_out, 0
            return left_out
