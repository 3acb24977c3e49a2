"""Keep what was dear to find out until the files that it came from change."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp(paths: Iterable[Path]) -> Stamp:
    """Tell the state of files and folders; None for one that is not there or not ours to see."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            told = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((told.st_mtime_ns, told.st_size, told.st_ino))
    return tuple(found)


@dataclass(slots=True)
class Kept(Generic[T]):
    """The last answer, and what it was made from; what fails is not kept.

    After ``seconds`` it is made again in any case.
    """

    seconds: float = float("inf")
    clock: Callable[[], float] = time.monotonic
    _value: tuple[Stamp, float, T] | None = field(default=None, init=False)

    def get(self, now: Stamp, make: Callable[[], T]) -> T:
        """Give the answer, made if the files are not as they were."""
        kept = self._value
        at = self.clock()
        if kept is not None and kept[0] == now and at - kept[1] < self.seconds:
            return kept[2]
        value = make()
        self._value = (now, at, value)
        return value
