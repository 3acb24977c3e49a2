"""Bound a rate: so many at once, then so many a second."""

import time
from collections.abc import Callable


class Bucket:
    """A token bucket: ``burst`` at once, then ``per_second``."""

    __slots__ = ("_burst", "_clock", "_level", "_per_second", "_since")

    def __init__(
        self, burst: float, per_second: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = self._level = burst
        self._per_second = per_second
        self._clock = clock
        self._since = clock()

    def take(self) -> bool:
        """Take one; False where there is none now."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._since) * self._per_second)
        self._since = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
