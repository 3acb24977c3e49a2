"""Have the node's certificate and ticket keys renewed in time, by a program that ends when done.

What asks for a certificate (keys, requests, messages) takes more memory than all metrics, and is
needed for a second each few days: so it is no part of the exporter's process.
"""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.spec import Sample, counter
from narthex_exporter.errors import NarthexError, UnavailableError
from narthex_exporter.sources.certificates import load
from narthex_exporter.sources.programs import run

log = logging.getLogger(__name__)

RENEWALS: Final = counter(
    "narthex_certificate_renewals_total",
    "Renewals of this node's certificate, by result.",
    ("result",),
)
KEYS: Final = counter(
    "narthex_ticket_key_fetches_total",
    "Fetches of the public keys by which this node's actor knows tickets, by result.",
    ("result",),
)
METRICS: Final = (RENEWALS, KEYS)
RETRY_SECONDS: Final = 600.0
KEYS_SECONDS: Final = 3600.0
FIRST_RETRY_SECONDS: Final = 5.0
# The program's own time limits add up to less.
_PROGRAM_SECONDS: Final = 60.0
_JOIN_SECONDS: Final = 5.0


def renew(state_dir: Path) -> None:
    """Run ``narthex renew`` for a node's folder. Raises UnavailableError in its words."""
    _program(f"--state.dir={state_dir.absolute()}")


def fetch_keys(state_dir: Path) -> None:
    """Run ``narthex renew --keys`` for a node's folder. Raises UnavailableError in its words."""
    _program(f"--state.dir={state_dir.absolute()}", "--keys")


def _program(*arguments: str) -> None:
    done = run(
        (sys.executable, "-Im", "narthex_exporter", "renew", *arguments),
        timeout_seconds=_PROGRAM_SECONDS,
    )
    if done.code != 0:
        raise UnavailableError(" ".join(done.error.split()) or f"narthex renew: {done.code}")


@dataclass(slots=True)
class _Tries:
    """When something is to be tried next, and how it went so far. Times are seconds."""

    done: int = 0
    failed: int = 0
    _retry: float = FIRST_RETRY_SECONDS
    _not_before: float = 0.0

    def wait(self, now: float) -> float:
        """Tell how long to wait still, after a failure."""
        return max(0.0, self._not_before - now)

    def succeeded(self) -> None:
        """Count a success."""
        self.done += 1
        self._retry = FIRST_RETRY_SECONDS

    def failed_at(self, now: float, *, jitter: Callable[[float, float], float]) -> None:
        """Count a failure: the next try comes later, then later still."""
        self.failed += 1
        self._not_before = now + self._retry * jitter(0.9, 1.1)
        self._retry = min(self._retry * 4, RETRY_SECONDS)


@dataclass(slots=True)
class Renewer:
    """Renew a node's certificate at half of its life and its ticket keys hourly, in a thread."""

    state_dir: Path
    clock: Callable[[], float] = time.time
    jitter: Callable[[float, float], float] = random.uniform
    renew: Callable[[Path], None] = renew
    fetch_keys: Callable[[Path], None] = fetch_keys
    monotonic: Callable[[], float] = time.monotonic
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _renewals: _Tries = field(default_factory=_Tries, init=False)
    _fetches: _Tries = field(default_factory=_Tries, init=False)
    _keys_due_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin to watch the certificate; on a node that is not enrolled there is none."""
        if (self.state_dir / "node.json").exists():
            self._thread = threading.Thread(target=self._run, name="renewer", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching; a program that is at it goes on to its end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=_JOIN_SECONDS)

    def samples(self) -> Iterator[Sample]:
        """Tell how renewals went."""
        for metric, tries in ((RENEWALS, self._renewals), (KEYS, self._fetches)):
            yield metric.at(tries.done, "success")
            yield metric.at(tries.failed, "failure")

    def due_in_seconds(self) -> float:
        """Tell when the next renewal is due: at half of the life, give or take a tenth."""
        found = load(self.state_dir / "pki" / "node.pem")
        begin = found.not_before.timestamp()
        life = found.not_after.timestamp() - begin
        return max(0.0, begin + life * self.jitter(0.45, 0.55) - self.clock())

    def _run(self) -> None:
        # At the start at once: the node may have been down while keys changed.
        self._keys_due_at = self.monotonic()
        while True:
            wait = min(self._look_at_certificate(), self._look_at_keys())
            # A suspended machine wakes up late: look at the wall clock at least hourly.
            if self._stopping.wait(min(wait, 3600.0)):
                return

    def _look_at_certificate(self) -> float:
        """Renew where it is due; tell how many seconds the next look can wait."""
        now, tries = self.monotonic(), self._renewals
        if (wait := tries.wait(now)) > 0:
            return wait
        try:
            if (wait := self.due_in_seconds()) > 0:
                return wait
            self.renew(self.state_dir)
        except (NarthexError, OSError, ValueError) as error:
            tries.failed_at(now, jitter=self.jitter)
            log.warning("certificate.not-renewed", extra={"error": str(error)})
            return tries.wait(self.monotonic())
        tries.succeeded()
        # With it came the keys.
        self._keys_due_at = now + KEYS_SECONDS * self.jitter(0.9, 1.0)
        log.info("certificate.renewed")
        return 0.0

    def _look_at_keys(self) -> float:
        """Fetch the ticket keys where it is due; tell how many seconds that can wait."""
        now, tries = self.monotonic(), self._fetches
        wait = max(tries.wait(now), self._keys_due_at - now)
        if wait > 0 or self._stopping.is_set():
            return wait
        try:
            self.fetch_keys(self.state_dir)
        except (NarthexError, OSError, ValueError) as error:
            tries.failed_at(now, jitter=self.jitter)
            log.warning("keys.not-fetched", extra={"error": str(error)})
            return tries.wait(self.monotonic())
        tries.succeeded()
        self._keys_due_at = now + KEYS_SECONDS * self.jitter(0.9, 1.0)
        return self._keys_due_at - now
