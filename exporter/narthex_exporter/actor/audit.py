"""Keep the node's own record: append-only, each row bound to the one before."""

import contextlib
import datetime as dt
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from narthex_exporter.contract.chain import GENESIS, row_hash
from narthex_exporter.contract.errors import NarthexError

_FILE_BYTES: Final = 16 << 20
_KEPT_FILES: Final = 8
# From here on it is quicker to read than to halve.
_NEAR_BYTES: Final = 32 * 1024


class AuditError(NarthexError):
    """The record cannot be written, or contradicts itself."""


class DamagedError(AuditError):
    """The record holds what was never written to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest row: its number and hash. ``seq`` is 0 before the first."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows of a record. ``first`` is the oldest that is kept; 0 where there is none."""

    head: Head
    first: int
    rows: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class Audit:
    """An open record. Use it as a context, or call ``close``."""

    path: Path
    boot_id: str = ""
    file_bytes: int = _FILE_BYTES
    kept_files: int = _KEPT_FILES
    clock: Callable[[], float] = time.time
    # Told of each row once it is on disk, in the order of the rows.
    written: Callable[[dict[str, Any]], None] = lambda _row: None
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
            self.written(row)
            return self._head

    def after(self, seq: int, *, limit: int, most_bytes: int) -> "Part":
        """Read rows on from one, as many as fit, one at least. Raises AuditError."""
        with self._lock, _told(self.path), contextlib.ExitStack() as opened:
            # Opened while nobody writes: a file that is put aside meanwhile is read all the same.
            head = self._head
            files = [opened.enter_context(path.open("rb")) for path in self._files()]
            kept = opened.pop_all()
        with kept, _told(self.path):
            return _part(files, seq, head=head, limit=limit, most_bytes=most_bytes)

    def _files(self) -> list[Path]:
        return [*rotated(self.path), self.path]

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


def _part(files: Sequence[BinaryIO], seq: int, *, head: Head, limit: int, most_bytes: int) -> Part:
    starts = [(first, file) for file in files if (first := _seq_at(file, 0)) is not None]
    found: list[dict[str, Any]] = []
    size = 0
    for index, (_, file) in enumerate(starts):
        if index + 1 < len(starts) and starts[index + 1][0] <= seq + 1:
            continue
        for row, length in _rows_after(file, seq):
            size += length
            full = bool(found) and (len(found) >= limit or size > most_bytes)
            # What is newer than the head may not be on disk yet.
            if full or row["seq"] > head.seq:
                return Part(head=head, first=starts[0][0], rows=tuple(found))
            found.append(row)
    return Part(head=head, first=starts[0][0] if starts else 0, rows=tuple(found))


def _rows_after(file: BinaryIO, seq: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Give the rows behind row ``seq`` and their lengths, found by halving: a file has many."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while high - low > _NEAR_BYTES:
        middle = (low + high) // 2
        found = _seq_at(file, middle)
        if found is not None and found <= seq:
            low = middle
        else:
            high = middle
    file.seek(low)
    if low:
        file.readline()
    for line in file:
        if not line.endswith(b"\n"):
            return  # being written just now
        row = _row(line)
        if row["seq"] > seq:
            yield row, len(line)


def _seq_at(file: BinaryIO, position: int) -> int | None:
    """Tell the number of the first row that begins behind a position (at it, for 0)."""
    file.seek(position)
    if position:
        file.readline()
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    found: int = _row(line)["seq"]
    return found


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        numbered = isinstance(row["seq"], int)
    except (ValueError, TypeError, KeyError):
        numbered = False
    if not numbered:
        raise DamagedError(
            "the audit record was changed: it holds a line that is no row",
            hint="on the node, as root: narthex actor verify-audit",
        )
    found: dict[str, Any] = row
    return found


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
