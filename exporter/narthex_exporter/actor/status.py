"""Tell the exporter how the actor is doing, in a file: that needs no ticket."""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from narthex_exporter.actor.engine import Engine
from narthex_exporter.actor.policy import Policy
from narthex_exporter.actor.tally import Tally

log = logging.getLogger(__name__)

# However many rows are written, so often is it told at most; and so often at least.
_SETTLE_SECONDS: Final = 0.2
_PULSE_SECONDS: Final = 15.0


@dataclass(slots=True, kw_only=True)
class Status:
    """Keeps the file up to date in a thread of its own. Use it as started and stopped."""

    path: Path
    engine: Engine
    tally: Tally
    clock: Callable[[], float] = time.time
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Write it, and go on doing so."""
        self._write(running=True)
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write it a last time."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._write(running=False)

    def changed(self) -> None:
        """Have it written soon."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(_PULSE_SECONDS)
            if self._stopping.wait(_SETTLE_SECONDS):
                return
            self._wake.clear()
            self._write(running=True)

    def _write(self, *, running: bool) -> None:
        sums = self.tally.sums()
        document = {
            "version": 1,
            "written_at": round(self.clock(), 3),
            "running": running,
            "mode": str(self.engine.policy.mode),
            "policy_sha256": policy_hash(self.engine.policy),
            "audit_seq": sums.seq,
            "runs_accepted": sums.runs,
            "requests_refused": sums.refused,
            "runs_under_way": self.engine.under_way,
        }
        try:
            _replace(self.path, document)
        except OSError as error:
            # Metrics are missing then; what may be done and what was done stays as it is.
            log.warning("status.unwritten", extra={"error": f"{self.path}: {error.strerror}"})


def policy_hash(policy: Policy) -> str:
    """Hash what a policy means, as hex: comments and order do not count."""
    text = json.dumps(policy.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, document: dict[str, Any]) -> None:
    """Put the whole file in place at once; it need not outlive a power cut."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The exporter reads it without being root; there is nothing in it to hide.
            os.fchmod(descriptor, 0o644)
            file.write(json.dumps(document).encode() + b"\n")
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
