"""Keep the node's own record: append-only, each row bound to the one before."""

import contextlib
import datetime as dt
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from narthex_exporter.contract.errors import NarthexError

GENESIS: Final = "0" * 64
_FILE_BYTES: Final = 16 << 20
_KEPT_FILES: Final = 8


class AuditError(NarthexError):
    """The record cannot be written, or contradicts itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest row: its number and hash. ``seq`` is 0 before the first."""

    seq: int
    hash: str


@dataclass(slots=True)
class Audit:
    """An open record. Use it as a context, or call ``close``."""

    path: Path
    boot_id: str = ""
    file_bytes: int = _FILE_BYTES
    kept_files: int = _KEPT_FILES
    clock: Callable[[], float] = time.time
    _head: Head = field(default=Head(seq=0, hash=GENESIS), init=False)
    _descriptor: int = field(default=-1, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        with _told(self.path):
            self._descriptor = os.open(
                self.path,
                os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            self._head = self._recover()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def head(self) -> Head:
        """The newest row."""
        with self._lock:
            return self._head

    def append(self, event: str, **fields: Any) -> Head:
        """Write one row and wait until it is on disk. Raises AuditError: then do not act."""
        with self._lock, _told(self.path):
            self._rotate()
            row = {
                "seq": self._head.seq + 1,
                "prev": self._head.hash,
                "ts": dt.datetime.fromtimestamp(self.clock(), tz=dt.UTC).isoformat(),
                "mono": round(time.monotonic(), 3),
                "boot": self.boot_id,
                "event": event,
                **fields,
            }
            row["hash"] = row_hash(row)
            line = json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            _append(self._descriptor, line)
            self._head = Head(seq=row["seq"], hash=row["hash"])
            return self._head

    def _recover(self) -> Head:
        """Check what is there. A row cut short by a crash was never acted on: it goes."""
        size = os.fstat(self._descriptor).st_size
        whole = self.path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end != size:
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
        return verify(self.path) or self._rotated_head()

    def _rotated_head(self) -> Head:
        older = rotated(self.path)
        return (verify(older[-1]) if older else None) or Head(seq=0, hash=GENESIS)

    def _rotate(self) -> None:
        if os.fstat(self._descriptor).st_size < self.file_bytes:
            return
        self.path.rename(self.path.with_name(f"{self.path.stem}-{self._head.seq:012d}.jsonl"))
        os.close(self._descriptor)
        self._descriptor = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_EXCL, 0o600
        )
        for old in rotated(self.path)[: -self.kept_files]:
            old.unlink()


def verify(path: Path) -> Head | None:
    """Check one file's chain and return its last row; ``None`` for an empty file.

    Raises AuditError, which names the first row that contradicts the one before.
    """
    head = None
    for row in rows(path):
        number = row.get("seq")
        wanted = (head.seq + 1, head.hash) if head else (number, row.get("prev"))
        if (number, row.get("prev")) != wanted or row.get("hash") != row_hash(row):
            raise AuditError(
                f"{path} was changed: row {number} does not follow from the one before",
                hint="keep the file as evidence: move it away, then start the actor",
            )
        head = Head(seq=row["seq"], hash=row["hash"])
    return head


def verify_all(path: Path) -> Head | None:
    """Check a record with its rotated files, oldest first, as one chain. Raises AuditError."""
    head = None
    for one in (*rotated(path), path):
        first = next(rows(one), None)
        if first is not None and head is not None and first.get("prev") != head.hash:
            raise AuditError(f"{one} does not follow from the file before it")
        head = verify(one) or head
    return head


def rotated(path: Path) -> list[Path]:
    """List a record's full files, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-*.jsonl"))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a record row by row. Raises AuditError for what is no row."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise AuditError(f"{path} was changed: line {number} is no row") from error
            if not isinstance(row, dict):
                raise AuditError(f"{path} was changed: line {number} is no row")
            yield row


def row_hash(row: dict[str, Any]) -> str:
    """Hash a row without its own hash; ``prev`` in it binds it to the one before."""
    body = {key: value for key, value in row.items() if key != "hash"}
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _append(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    if written != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, "the row was cut short: is the disk full?")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuditError(
            f"cannot write the audit record {path}: {error.strerror or error}",
            hint="nothing is executed without it: free some space, or repair the folder",
        ) from error
