"""Wait for signals without missing one.

A handler of Python's runs only when the main thread comes by; one that blocks in a lock or a queue
just as the signal arrives sleeps on. The interpreter's own C handler writes the number into a
pipe at once, whichever thread it runs in: that is what is waited for here.
"""

import os
import select
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Signals:
    """The signals ``wanted``, received from entry to exit; for the main thread."""

    wanted: Iterable[int] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    _received: deque[int] = field(default_factory=deque, init=False)
    _pipe: tuple[int, int] = field(default=(-1, -1), init=False)
    _before: dict[int, object] = field(default_factory=dict, init=False)
    _wakeup: int = field(default=-1, init=False)

    def __enter__(self) -> Self:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in self.wanted:
            self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave
        signal.set_wakeup_fd(self._wakeup)
        for descriptor in self._pipe:
            os.close(descriptor)

    def wait(self, seconds: float | None = None) -> int | None:
        """Give the next signal's number; None where none came in time."""
        if not self._received:
            poll = select.poll()
            poll.register(self._pipe[0], select.POLLIN)
            if poll.poll(None if seconds is None else seconds * 1000):
                self._received += os.read(self._pipe[0], 4096)
        return self._received.popleft() if self._received else None
