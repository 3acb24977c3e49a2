"""Push what changed to open pages: one look at the services, shared by everybody who watches."""

import json
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, cast

from narthex_operator.errors import LimitedError, NotSignedInError, OperatorError

T = TypeVar("T")

INTERVAL_SECONDS: Final = 2.0
SESSION_CHECK_SECONDS: Final = 15.0
LIFETIME_SECONDS: Final = 600.0
MAX_STREAMS: Final = 256
_FORGET_SECONDS: Final = 60.0

Events = Mapping[str, Any]


@dataclass(slots=True)
class _Entry(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float | None = None
    value: T | None = None
    error: OperatorError | None = None


@dataclass(slots=True)
class Shared:
    """Remember what was read for a moment, so that many viewers cost one reading."""

    clock: Callable[[], float] = time.monotonic
    interval_seconds: float = INTERVAL_SECONDS
    _entries: dict[Hashable, _Entry[Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what ``read`` returned, or raise what it raised, at most one interval ago.

        ``key`` must tell apart whoever may see different things.
        """
        entry = self._entry(key)
        with entry.lock:
            now = self.clock()
            if entry.at is None or now - entry.at >= self.interval_seconds:
                try:
                    entry.value, entry.error = read(), None
                except OperatorError as error:
                    entry.value, entry.error = None, error
                entry.at = self.clock()
            if entry.error is not None:
                raise entry.error
            return cast("T", entry.value)

    def _entry(self, key: Hashable) -> _Entry[Any]:
        with self._lock:
            oldest = self.clock() - _FORGET_SECONDS
            for old in [k for k, e in self._entries.items() if e.at is not None and e.at < oldest]:
                del self._entries[old]
            return self._entries.setdefault(key, _Entry())


def changed_rows(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """Tell which rows are new or different and which are gone; empty when none are."""
    rows = {key: html for key, html in after.items() if before.get(key) != html}
    removed = [key for key in before if key not in after]
    if not rows and not removed:
        return {}
    return {"rows": rows, "removed": removed, "order": list(after)}


def encode(event: str, data: Any) -> str:
    """Write one Server-Sent Event; JSON keeps line ends in data from ending it."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


@dataclass(slots=True)
class Live:
    """The panel's streams: bounded in number and in life. Times are seconds."""

    shared: Shared = field(default_factory=Shared)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    lifetime_seconds: float = LIFETIME_SECONDS
    slots: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(MAX_STREAMS)
    )

    def admit(self) -> None:
        """Take a stream's slot, to be given back with ``leave``. Raises LimitedError."""
        if not self.slots.acquire(blocking=False):
            raise LimitedError(
                "too many pages are watched live at once",
                retry_after_seconds=SESSION_CHECK_SECONDS,
                hint="this page tries again by itself; close pages you do not need",
            )

    def leave(self) -> None:
        """Give a stream's slot back."""
        self.slots.release()

    def stream(
        self, look: Callable[[], Events | None], *, still_allowed: Callable[[], None]
    ) -> Iterator[str]:
        """Yield events until nothing can change, the session ends or the lifetime is over.

        ``look`` returns the events since its last call, by name, and ``None`` for the end.
        ``still_allowed`` raises NotSignedInError once whoever watches no longer may.
        """
        started = checked = self.clock()
        failing = ""
        yield "retry: 3000\n\n"
        while self.clock() - started < self.lifetime_seconds:
            try:
                if self.clock() - checked >= SESSION_CHECK_SECONDS:
                    checked = self.clock()
                    still_allowed()
                events, failing = _look(look, failing)
            except NotSignedInError:
                yield encode("ended", {"reason": "signed-out"})
                return
            if events is None:
                yield encode("ended", {"reason": "final"})
                return
            for name, data in events.items():
                yield encode(name, data)
            if not events:
                # Only a write tells that a page was left: its slot is free within two looks.
                yield ": still here\n\n"
            self.sleep(self.shared.interval_seconds)


def _look(look: Callable[[], Events | None], failing: str) -> tuple[Events | None, str]:
    """Look once; a problem is told when it begins, changes and ends, not at each look."""
    try:
        events = look()
    except NotSignedInError:
        raise
    except OperatorError as error:
        told = str(error)
        return ({} if told == failing else {"problem": {"message": told}}), told
    if failing and events is not None:
        return {"recovered": {}, **events}, ""
    return events, ""
