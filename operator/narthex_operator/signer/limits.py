"""Count what one subject may ask for in a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_SUBJECTS: Final = 4096


@dataclass(slots=True, kw_only=True)
class Buckets:
    """A token bucket for each subject: ``burst`` at once, then ``per_second``."""

    burst: float
    per_second: float
    clock: Callable[[], float] = time.monotonic
    _levels: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def take(self, subject: str, count: int = 1) -> bool:
        """Take some, all or none; False when the subject must wait."""
        now = self.clock()
        with self._lock:
            level, since = self._levels.pop(subject, (self.burst, now))
            level = min(self.burst, level + (now - since) * self.per_second)
            allowed = level >= count
            self._levels[subject] = (level - count if allowed else level, now)
            # The longest silent one has the fullest bucket: little is forgotten with it.
            while len(self._levels) > _SUBJECTS:
                self._levels.popitem(last=False)
            return allowed
