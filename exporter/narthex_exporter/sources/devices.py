"""Remember for some seconds what devices there are, so that scrapes only read their values."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from narthex_exporter.sources.place import Paths

T = TypeVar("T")
# A device that was plugged in is seen within this time.
KEPT_SECONDS: Final = 10.0


@dataclass(slots=True)
class Devices:
    """What was found of each kind of device, and when; ``clock`` is a monotonic one."""

    clock: Callable[[], float] = time.monotonic
    kept_seconds: float = KEPT_SECONDS
    _kept: dict[Hashable, tuple[float, Any]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one that remembers nothing yet."""
        return cls()

    def remembered(self, kind: Hashable, look: Callable[[], T]) -> T:
        """Give what ``look`` finds, or found less than ``kept_seconds`` ago for the same kind."""
        now = self.clock()
        kept = self._kept.get(kind)
        if kept is not None and now - kept[0] < self.kept_seconds:
            found: T = kept[1]
            return found
        found = look()
        self._kept[kind] = now, found
        return found
