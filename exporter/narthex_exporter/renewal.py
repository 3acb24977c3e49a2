"""Have the node's certificate renewed in time, by a program of its own that ends when it is done.

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
RETRY_SECONDS: Final = 600.0
FIRST_RETRY_SECONDS: Final = 5.0
# The program's own time limits add up to less.
_PROGRAM_SECONDS: Final = 60.0
_JOIN_SECONDS: Final = 5.0


def renew(state_dir: Path) -> None:
    """Run ``narthex renew`` for a node's folder. Raises UnavailableError in its words."""
    done = run(
        (
            sys.executable,
            "-Im",
            "narthex_exporter",
            "renew",
            f"--state.dir={state_dir.absolute()}",
        ),
        timeout_seconds=_PROGRAM_SECONDS,
    )
    if done.code != 0:
        raise UnavailableError(" ".join(done.error.split()) or f"narthex renew: {done.code}")


@dataclass(slots=True)
class Renewer:
    """Renew a node's certificate at half of its life, in a thread of its own."""

    state_dir: Path
    clock: Callable[[], float] = time.time
    jitter: Callable[[float, float], float] = random.uniform
    renew: Callable[[Path], None] = renew
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _renewed: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)

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
        yield RENEWALS.at(self._renewed, "success")
        yield RENEWALS.at(self._failed, "failure")

    def due_in_seconds(self) -> float:
        """Tell when the next renewal is due: at half of the life, give or take a tenth."""
        found = load(self.state_dir / "pki" / "node.pem")
        begin = found.not_before.timestamp()
        life = found.not_after.timestamp() - begin
        return max(0.0, begin + life * self.jitter(0.45, 0.55) - self.clock())

    def _run(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            try:
                wait = self.due_in_seconds()
                if wait == 0.0:
                    self.renew(self.state_dir)
                    self._renewed += 1
                    retry = FIRST_RETRY_SECONDS
                    log.info("certificate.renewed")
                    continue
            except (NarthexError, OSError, ValueError) as error:
                self._failed += 1
                wait = retry * self.jitter(0.9, 1.1)
                retry = min(retry * 4, RETRY_SECONDS)
                log.warning("certificate.not-renewed", extra={"error": str(error)})
            # A suspended machine wakes up late: look at the wall clock at least hourly.
            if self._stopping.wait(min(wait, 3600.0)):
                return
