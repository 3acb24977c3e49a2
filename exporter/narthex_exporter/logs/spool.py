"""Queue entries on disk: entry, settled time and source position in one transaction.

A crash loses neither an entry nor its position; a retry sends the same time and line again, so
that the store can drop it. ``synchronous = NORMAL``: a power cut takes back entry and position
together.
"""

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from narthex_exporter.errors import UnavailableError
from narthex_exporter.logs.record import FOLLOWS, Counters, Labels, Record, Row, make_labels

log = logging.getLogger(__name__)

T = TypeVar("T")
SECOND: Final = 1_000_000_000
AHEAD_NS: Final = 300 * SECOND
# The store takes a week; an hour is left for the way there.
BEHIND_NS: Final = (7 * 24 - 1) * 3600 * SECOND
_DEAD_LETTERS: Final = 10_000
_DEAD_LETTER_CHARS: Final = 8192
_ROW_OVERHEAD: Final = 96
_POSITIONS_KEPT_SECONDS: Final = 30 * 24 * 3600
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA journal_size_limit = 16777216;
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -256;
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, labels TEXT NOT NULL UNIQUE, last_ts INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, ts INTEGER NOT NULL,
    line TEXT NOT NULL, meta TEXT NOT NULL, size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (
    source TEXT PRIMARY KEY, value TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, labels TEXT NOT NULL, ts INTEGER NOT NULL,
    line TEXT NOT NULL, meta TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL
);
"""


class SpoolError(UnavailableError):
    """The queue cannot be written or read now; the shipper tries again."""


@dataclass(slots=True)
class _Stream:
    id: int
    last_ts: int


@dataclass(slots=True)
class Spool:
    """The queue; opened at its first use, anew after an error. Safe to share by threads."""

    path: Path
    counters: Counters
    max_bytes: int = 1 << 30
    max_percent: float = 5.0
    # More labels for the line that tells of a gap.
    labels: Labels = ()
    now_ns: Callable[[], int] = time.time_ns
    degraded: bool = field(default=False, init=False)
    entries: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)
    oldest_ns: int = field(default=0, init=False)
    _db: sqlite3.Connection | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _streams: dict[Labels, _Stream] = field(default_factory=dict, init=False)
    _labels: dict[int, Labels] = field(default_factory=dict, init=False)
    # Entries up to here are on their way: they are neither dropped nor counted as lost.
    _in_flight: int = field(default=0, init=False)
    _gap: tuple[int, int, int] | None = field(default=None, init=False)
    _cap: int = field(default=0, init=False)

    def put(self, records: Sequence[Record], positions: Mapping[str, str]) -> None:
        """Queue records and move positions, all or nothing. Raises SpoolError."""

        def work(db: sqlite3.Connection) -> tuple[int, int, int] | None:
            rows = self._settle(db, records)
            db.executemany(
                "INSERT INTO entries (stream, ts, line, meta, size) VALUES (?, ?, ?, ?, ?)", rows
            )
            at = self.now_ns() // SECOND
            db.executemany(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (source)"
                " DO UPDATE SET value = excluded.value, at = excluded.at",
                [(source, value, at) for source, value in positions.items()],
            )
            self.entries += len(rows)
            self.bytes += sum(row[4] for row in rows)
            return self._drop_oldest(db) if self.bytes > self._cap else None

        gap = self._change(work)
        self._gap = gap
        if gap is not None:
            self.counters.add(self.counters.dropped, "queue-full", gap[0])

    def take(self, after: int, *, max_bytes: int, max_rows: int = 2_000) -> list[Row]:
        """Give the oldest entries behind ``after`` and mark them as on their way."""

        def work(db: sqlite3.Connection) -> list[Row]:
            found: list[Row] = []
            total = 0
            for seq, stream, ts, line, meta, size in db.execute(
                "SELECT seq, stream, ts, line, meta, size FROM entries"
                " WHERE seq > ? ORDER BY seq LIMIT ?",
                (after, max_rows),
            ):
                total += size
                if found and total > max_bytes:
                    break
                found.append(Row(seq, self._labels[stream], ts, line, _load(meta), size))
            if found:
                self._in_flight = found[-1].seq
                self.oldest_ns = found[0].ts_ns
            else:
                self.oldest_ns = 0
            return found

        return self._read(work)

    def done(self, first: int, last: int) -> None:
        """Delete entries that the store has. Raises SpoolError."""

        def work(db: sqlite3.Connection) -> None:
            self._delete(db, "seq BETWEEN ? AND ?", (first, last))

        self._change(work)

    def replace(self, row: Row) -> Row:
        """Change an entry that the store refused, for good; time 0 becomes now."""

        def work(db: sqlite3.Connection) -> Row:
            stream = self._stream(db, row.labels)
            ts = row.ts_ns
            if not ts:
                ts = max(self.now_ns(), stream.last_ts + 1)
                stream.last_ts = ts
                db.execute("UPDATE streams SET last_ts = ? WHERE id = ?", (ts, stream.id))
            db.execute(
                "UPDATE entries SET stream = ?, ts = ?, line = ?, meta = ? WHERE seq = ?",
                (stream.id, ts, row.line, _dump(row.meta), row.seq),
            )
            return row._replace(ts_ns=ts)

        return self._change(work)

    def bury(self, row: Row, reason: str) -> None:
        """Move an entry that the store will not take to the dead letters. Raises SpoolError."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO dead_letters (labels, ts, line, meta, reason, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    _dump(row.labels),
                    row.ts_ns,
                    row.line[:_DEAD_LETTER_CHARS],
                    _dump(row.meta),
                    reason,
                    self.now_ns() // SECOND,
                ),
            )
            db.execute(
                "DELETE FROM dead_letters WHERE id <= (SELECT max(id) FROM dead_letters) - ?",
                (_DEAD_LETTERS,),
            )
            self._delete(db, "seq = ?", (row.seq,))

        self._change(work)

    def dead_letters(self) -> list[tuple[str, str]]:
        """List the reasons and lines of the dead letters, the oldest first."""
        return self._read(
            lambda db: db.execute("SELECT reason, line FROM dead_letters ORDER BY id").fetchall()
        )

    def positions(self, prefix: str) -> dict[str, str]:
        """Give the positions of the sources whose name begins with ``prefix``."""
        return self._read(
            lambda db: dict(
                db.execute(
                    "SELECT source, value FROM positions WHERE substr(source, 1, ?) = ?",
                    (len(prefix), prefix),
                ).fetchall()
            )
        )

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _settle(
        self, db: sqlite3.Connection, records: Sequence[Record]
    ) -> list[tuple[int, int, str, str, int]]:
        """Give each record its time: its own or now, but later than all before in its stream."""
        now = self.now_ns()
        rows = []
        touched: dict[int, _Stream] = {}
        if self._gap is not None:
            records = [self._gap_record(*self._gap), *records]
        for record in records:
            stream = self._stream(db, record.labels)
            ts, meta = record.ts_ns, record.meta
            if ts == FOLLOWS:
                ts = stream.last_ts + 1 if stream.last_ts else None
            elif ts is not None and not now - BEHIND_NS <= ts <= now + AHEAD_NS:
                self.counters.clock_steps += ts > now
                meta = (*meta, ("orig_ts", str(ts)))
                ts = None
            stream.last_ts = max(now if ts is None else ts, stream.last_ts + 1)
            touched[stream.id] = stream
            text = _dump(meta)
            size = len(record.line.encode()) + len(text) + _ROW_OVERHEAD
            rows.append((stream.id, stream.last_ts, record.line, text, size))
        db.executemany(
            "UPDATE streams SET last_ts = ? WHERE id = ?",
            [(stream.last_ts, stream.id) for stream in touched.values()],
        )
        return rows

    def _gap_record(self, count: int, first: int, last: int) -> Record:
        labels = make_labels(**{**dict(self.labels), "job": "narthex", "component": "logship"})
        return Record(labels, f"gap lost={count} from={first} to={last} reason=queue-full")

    def _drop_oldest(self, db: sqlite3.Connection) -> tuple[int, int, int] | None:
        excess, last, count, first_ts, last_ts = self.bytes - self._cap, 0, 0, 0, 0
        for seq, ts, size in db.execute(
            "SELECT seq, ts, size FROM entries WHERE seq > ? ORDER BY seq", (self._in_flight,)
        ):
            if excess <= 0:
                break
            first_ts = first_ts or ts
            excess, last, count, last_ts = excess - size, seq, count + 1, ts
        if not count:
            return None
        self._delete(db, "seq > ? AND seq <= ?", (self._in_flight, last))
        return count, first_ts, last_ts

    def _delete(self, db: sqlite3.Connection, where: str, values: tuple[int, ...]) -> None:
        size = db.execute(f"SELECT coalesce(sum(size), 0) FROM entries WHERE {where}", values)  # noqa: S608 - constants
        self.bytes -= size.fetchone()[0]
        self.entries -= db.execute(f"DELETE FROM entries WHERE {where}", values).rowcount  # noqa: S608

    def _stream(self, db: sqlite3.Connection, labels: Labels) -> _Stream:
        found = self._streams.get(labels)
        if found is None:
            number = db.execute(
                "INSERT INTO streams (labels, last_ts) VALUES (?, 0) RETURNING id",
                (_dump(labels),),
            ).fetchone()[0]
            found = self._streams[labels] = _Stream(number, 0)
            self._labels[number] = labels
        return found

    def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                db.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                raise SpoolError(f"cannot write the queue of logs {self.path}: {error}") from error
            self.degraded = False
            return result

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                raise SpoolError(f"cannot read the queue of logs {self.path}: {error}") from error

    def _fail(self, error: Exception) -> None:
        """Close the file: what is in memory may no longer be what is on disk."""
        self.degraded = True
        log.warning("spool.degraded", extra={"error": str(error), "path": str(self.path)})
        if self._db is not None:
            self._db.close()
            self._db = None
        # Only what says it is damaged is set aside; a full disk is not damage.
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._set_aside()

    def _set_aside(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            damaged = Path(f"{self.path}{suffix}")
            if damaged.exists():
                damaged.replace(f"{damaged}.damaged")
        log.error("spool.damaged", extra={"kept": f"{self.path}.damaged"})

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        if not self.path.exists():
            # Lines may be private: nobody else reads them here.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            db.executescript(_SCHEMA)
            disk = shutil.disk_usage(self.path.parent).total
            self._cap = min(self.max_bytes, int(disk * self.max_percent / 100))
            rows = db.execute("SELECT id, labels, last_ts FROM streams").fetchall()
            self._streams = {_load(labels): _Stream(number, ts) for number, labels, ts in rows}
            self._labels = {stream.id: labels for labels, stream in self._streams.items()}
            self.entries, self.bytes = db.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM entries"
            ).fetchone()
            old = self.now_ns() // SECOND - _POSITIONS_KEPT_SECONDS
            db.execute("DELETE FROM positions WHERE at < ?", (old,))
        except BaseException:
            db.close()
            raise
        self._db = db
        return db


def _dump(pairs: Labels) -> str:
    return json.dumps(pairs, ensure_ascii=True, separators=(",", ":")) if pairs else ""


def _load(text: str) -> Labels:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()
