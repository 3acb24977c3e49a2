"""Follow the systemd journal through journalctl, from a cursor that the queue keeps."""

import contextlib
import json
import logging
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from narthex_exporter.logs.files import Batch
from narthex_exporter.logs.record import Counters, Record, make_labels, pieces, readable
from narthex_exporter.logs.redact import Redactor

log = logging.getLogger(__name__)

KEY: Final = "journal"
_CHUNK: Final = 1 << 16
# journalctl writes bytes that are not text as lists of numbers: four characters each, and more.
_MAX_ENTRY: Final = 8 << 20
_FIRST: Final = "-1hour"
_WAIT_SECONDS: Final = (1.0, 60.0)
_STALL_SECONDS: Final = 60.0
_UNITS: Final = 200
_LEVELS: Final = ("fatal", "critical", "critical", "error", "warn", "info", "info", "debug")
# One unit's many instances are one stream.
_INSTANCE: Final = re.compile(
    r"^(session|run|docker|crio|libpod|cri-containerd)-[^/]*\.(scope|service)$"
)
_META: Final = (
    ("pid", "_PID"),
    ("uid", "_UID"),
    ("identifier", "SYSLOG_IDENTIFIER"),
    ("transport", "_TRANSPORT"),
    ("boot_id", "_BOOT_ID"),
    ("priority", "PRIORITY"),
)


@dataclass(slots=True)
class Journal:
    """Read the journal. Not safe to share by threads; ``program`` is journalctl."""

    labels: dict[str, str]
    redactor: Redactor
    counters: Counters
    positions: dict[str, str]
    program: tuple[str, ...] = ("journalctl",)
    clock: Callable[[], float] = time.monotonic
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _buffer: bytearray = field(default_factory=bytearray, init=False)
    _cursor: str = field(default="", init=False)
    _last_us: int = field(default=0, init=False)
    _skip_to_us: int = field(default=0, init=False)
    _retry_at: float = field(default=0.0, init=False)
    _wait: float = field(default=_WAIT_SECONDS[0], init=False)
    _quiet_since: float = field(default=0.0, init=False)
    _units: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            saved = json.loads(self.positions[KEY])
            self._cursor, self._last_us = str(saved["cursor"]), int(saved["us"])

    def read(self, wait_seconds: float) -> Batch:
        """Wait for entries up to some seconds and give those that came."""
        if self._process is None:
            if self.clock() < self._retry_at:
                return Batch()
            self._start()
        process = self._process
        if process is None or process.stdout is None:
            return Batch()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(wait_seconds)
        if not ready:
            self._check_stall()
            return Batch()
        data = os.read(process.stdout.fileno(), _CHUNK)
        if not data:
            self._ended(process)
            return Batch()
        self._quiet_since, self._wait = self.clock(), _WAIT_SECONDS[0]
        return self._batch(data)

    def close(self) -> None:
        """Stop journalctl."""
        process, self._process = self._process, None
        self._buffer.clear()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    @property
    def running(self) -> bool:
        """Tell whether journalctl runs."""
        return self._process is not None

    def _start(self) -> None:
        where: tuple[str, ...]
        if self._skip_to_us:
            where = (f"--since=@{max(0, self._skip_to_us // 1_000_000 - 5)}",)
        elif self._cursor:
            where = (f"--after-cursor={self._cursor}",)
        else:
            where = (f"--since={_FIRST}",)
        # No filter by unit: with one, journalctl 252 skips an entry behind a cursor (issue 30288).
        command = [*self.program, "--output=json", "--all", "--follow", "--no-tail", "--quiet"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed program, no user text
                [*command, *where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        except OSError as error:
            log.warning("journal.not_started", extra={"error": str(error)})
            self._later()
        self._quiet_since = self.clock()

    def _ended(self, process: "subprocess.Popen[bytes]") -> None:
        self.close()
        log.warning("journal.ended", extra={"code": process.returncode})
        self.counters.restarts += 1
        # Where the cursor is of no use (vacuumed, another machine's), the time is.
        if process.returncode and self._last_us:
            self._skip_to_us = self._last_us
        self._later()

    def _later(self) -> None:
        self._retry_at = self.clock() + self._wait
        self._wait = min(self._wait * 2, _WAIT_SECONDS[1])

    def _check_stall(self) -> None:
        """Start again by time where the journal has newer entries that the cursor hides."""
        if self.clock() - self._quiet_since < _STALL_SECONDS:
            return
        self._quiet_since = self.clock()
        newest = self._newest_us()
        if self._last_us and newest > self._last_us + _STALL_SECONDS * 1_000_000:
            log.warning("journal.stalled", extra={"behind_us": newest - self._last_us})
            self.counters.restarts += 1
            self._skip_to_us = self._last_us
            self.close()

    def _newest_us(self) -> int:
        command = [*self.program, "--output=json", "--lines=1", "--quiet", "--no-pager"]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program, no user text
                command, capture_output=True, timeout=10.0, check=False
            )
            return int(json.loads(done.stdout)["__REALTIME_TIMESTAMP"])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
            return 0

    def _batch(self, data: bytes) -> Batch:
        self._buffer += data
        end = self._buffer.rfind(b"\n") + 1
        batch = Batch()
        if not end:
            if len(self._buffer) > _MAX_ENTRY:
                log.warning("journal.entry_too_long", extra={"limit": _MAX_ENTRY})
                Counters.add(self.counters.dropped, "too-long")
                self._buffer.clear()
            return batch
        lines = bytes(self._buffer[:end]).splitlines()
        del self._buffer[:end]
        for line in lines:
            self._take(line, batch)
        if self._cursor and batch.records:
            position = json.dumps({"cursor": self._cursor, "us": self._last_us})
            batch.positions[KEY] = position
        return batch

    def _take(self, line: bytes, batch: Batch) -> None:
        try:
            entry = json.loads(line)
            cursor, us = str(entry["__CURSOR"]), int(entry["__REALTIME_TIMESTAMP"])
        except (ValueError, KeyError, TypeError, RecursionError):
            Counters.add(self.counters.dropped, "unreadable")
            return
        if self._skip_to_us:
            if us <= self._skip_to_us:
                return
            self._skip_to_us = 0
        self._cursor, self._last_us = cursor, us
        Counters.add(self.counters.read_lines, "journal")
        batch.records.extend(self._records(entry, us))
        batch.bytes += len(line)

    def _records(self, entry: dict[str, Any], us: int) -> Iterable[Record]:
        unit = self._unit(entry)
        labels = make_labels(**{**self.labels, "job": "systemd-journal", "unit": unit})
        meta = [(name, _text(entry.get(key))[:256]) for name, key in _META]
        priority = _text(entry.get("PRIORITY"))
        if priority.isdigit() and len(priority) == 1 and int(priority) < len(_LEVELS):
            meta.append(("level", _LEVELS[int(priority)]))
        exact = _text(entry.get("_SYSTEMD_UNIT"))[:256]
        if exact and exact != unit:
            meta.append(("systemd_unit", exact))
        text = self.redactor.clean(f"{KEY}:{unit}", _text(entry.get("MESSAGE")))
        kept = tuple(sorted((name, value) for name, value in meta if value))
        for part in pieces(text):
            yield Record(labels, part, us * 1000, kept)

    def _unit(self, entry: dict[str, Any]) -> str:
        unit = _text(entry.get("_SYSTEMD_UNIT")) or _text(entry.get("UNIT"))
        if not unit:
            unit = "kernel" if _text(entry.get("_TRANSPORT")) == "kernel" else "none"
        unit = _INSTANCE.sub(r"\1.\2", unit[:128])
        head, at, tail = unit.partition("@")
        if at:
            unit = f"{head}@.{tail.rpartition('.')[2]}"
        if unit not in self._units:
            if len(self._units) >= _UNITS:
                return "other"
            self._units.add(unit)
        return unit


def _text(value: object) -> str:
    """Read a field: text, null, bytes as a list of numbers, or a list of several values."""
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list) and value:
        if all(isinstance(each, int) and 0 <= each < 256 for each in value):  # noqa: PLR2004
            return readable(bytes(value))
        return _text(value[0])
    return ""
